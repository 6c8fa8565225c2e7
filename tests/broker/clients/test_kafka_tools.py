"""Kafka's own command line tools (`kafka-topics.sh` and its kin) against the embedded broker and against Apache Kafka."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.broker.clients.checking import fresh
from tests.support.kafka_jars import KafkaUnavailable, fetch_jars, require_java
from tests.support.loud_skips import skip_loudly

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.kafka, pytest.mark.timeout(600)]

LIMIT = 120.0
_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_SILENT = ("-Dlog4j2.level=OFF",)
TOOLS = {
    "topics": "TopicCommand",
    "configs": "ConfigCommand",
    "groups": "consumer.group.ConsumerGroupCommand",
    "transactions": "TransactionsCommand",
    "offsets": "GetOffsetShell",
    "delete-records": "DeleteRecordsCommand",
    "log-dirs": "LogDirsCommand",
    "cluster": "ClusterTool",
    "produce": "ConsoleProducer",
    "consume": "consumer.ConsoleConsumer",
}


class Tools:
    """The tools, bound to a broker."""

    def __init__(self, bootstrap: str) -> None:
        self._java, self._jars, self._bootstrap = require_java(), fetch_jars(), bootstrap

    def run(self, line: str, *more: str, given: str = "") -> str:
        """Run a tool, its name and arguments in one line; return what it says."""
        name, *arguments = [*line.split(), *more]
        command = [self._java, *_OPTIONS, *_SILENT, "-cp", f"{self._jars}/*", f"org.apache.kafka.tools.{TOOLS[name]}"]
        where = ["--bootstrap-server", self._bootstrap]
        place = [arguments[0], *where, *arguments[1:]] if name == "cluster" else [*where, *arguments]
        done = subprocess.run(
            [*command, *place], input=given, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        return done.stdout + done.stderr


@pytest.fixture(params=["embedded_broker", "kafka_cluster"], ids=["embedded", "kafka"])
def tools(request: pytest.FixtureRequest) -> Tools:
    try:
        require_java()
        fetch_jars()
    except KafkaUnavailable as error:
        skip_loudly("Kafka's own tools", str(error))
    return Tools(request.getfixturevalue(request.param))


def rows(table: str, first: str) -> list[list[str]]:
    """Return the rows of a table whose first column is something, split into columns."""
    return sorted(line.split() for line in table.splitlines() if line.split()[:1] == [first])


def test_topics_are_created_described_grown_and_deleted(tools: Tools) -> None:
    topic = fresh("tools")
    made = "--config retention.ms=3600000 --config cleanup.policy=compact,delete"
    assert f"Created topic {topic}." in tools.run(f"topics --create --topic {topic} --partitions 3 {made}")
    described = tools.run(f"topics --describe --topic {topic}")
    assert re.search(r"PartitionCount: 3\s+ReplicationFactor: 1", described)
    assert "cleanup.policy=compact,delete" in described
    assert "retention.ms=3600000" in described
    assert tools.run(f"topics --alter --topic {topic} --partitions 5").strip() == ""
    assert "PartitionCount: 5" in tools.run(f"topics --describe --topic {topic}")
    assert tools.run(f"topics --create --if-not-exists --topic {topic} --replication-factor 3").strip() == ""
    again = tools.run(f"topics --create --topic {topic} --replication-factor 3")
    assert re.search("already exists|exists already", again), "not that there are too few brokers"
    assert tools.run(f"topics --describe --topic {topic} --under-replicated-partitions").strip() == ""
    sizes = json.loads(tools.run(f"log-dirs --describe --topic-list {topic}").splitlines()[-1])
    (directory,) = sizes["brokers"][0]["logDirs"]
    assert {each["partition"] for each in directory["partitions"]} == {f"{topic}-{number}" for number in range(5)}
    assert tools.run(f"topics --delete --topic {topic}").strip() == ""
    assert topic not in tools.run("topics --list").split()
    assert tools.run("cluster cluster-id").startswith("Cluster ID: ")


def test_settings_are_changed_and_described(tools: Tools) -> None:
    topic = fresh("tools")
    tools.run(f"topics --create --topic {topic} --config retention.ms=3600000")
    assert "Completed" in tools.run(f"configs --alter --topic {topic} --add-config max.message.bytes=2000000")
    assert "Completed" in tools.run(f"configs --alter --topic {topic} --delete-config retention.ms")
    described = tools.run(f"configs --describe --topic {topic}")
    assert "DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000000, DEFAULT_CONFIG:message.max.bytes=1048588" in described
    assert "retention.ms=3600000" not in described
    everything = tools.run("configs --describe --entity-type brokers --entity-name 1 --all")
    assert "transaction.max.timeout.ms=900000 sensitive=false synonyms={DEFAULT_CONFIG:" in everything


def test_records_are_produced_in_every_codec_and_consumed(tools: Tools) -> None:
    topic = fresh("tools")
    tools.run(f"topics --create --topic {topic}")
    line = "--reader-property parse.key=true --reader-property parse.headers=true --reader-property null.marker=NULL"
    tools.run(f"produce --topic {topic} {line}", given="h1:v1,h2:v2\tk1\tone\nh1:ä\tk2\tNULL\n")
    codecs = ("gzip", "snappy", "lz4", "zstd")
    for codec in codecs:
        tools.run(f"produce --topic {topic} --compression-codec {codec}", given=f"{codec}\n")
    shown = "--formatter-property print.key=true --formatter-property print.headers=true"
    read = f"consume --topic {topic} --from-beginning --timeout-ms 30000"
    found = tools.run(f"{read} --max-messages 6 --isolation-level read_committed {shown}")
    expected = ["h1:v1,h2:v2\tk1\tone", "h1:ä\tk2\tnull", *(f"NO_HEADERS\tnull\t{codec}" for codec in codecs)]
    assert [line for line in found.splitlines() if "\t" in line] == expected
    assert tools.run(f"offsets --topic {topic}").split() == [f"{topic}:0:6"]


@pytest.mark.parametrize("codec", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_records_that_the_broker_compressed_are_consumed(tools: Tools, codec: str) -> None:
    topic = fresh("tools")
    tools.run(f"topics --create --topic {topic} --config compression.type={codec}")
    sent = "lz4" if codec != "lz4" else "zstd"
    values = [f"value {number} " + "x" * 5000 for number in range(20)]
    tools.run(f"produce --topic {topic} --compression-codec {sent}", given="\n".join(values) + "\n")
    found = tools.run(f"consume --topic {topic} --from-beginning --timeout-ms 30000 --max-messages 20")
    assert [line for line in found.splitlines() if line.startswith("value")] == values


def test_groups_are_listed_described_reset_and_deleted(tools: Tools, tmp_path: Path) -> None:
    topic, group = fresh("tools"), fresh("group")
    tools.run(f"topics --create --topic {topic} --partitions 2")
    tools.run(f"produce --topic {topic}", given="one\ntwo\nthree\n")
    tools.run(f"consume --topic {topic} --group {group} --from-beginning --max-messages 3 --timeout-ms 30000")
    assert rows(tools.run("groups --list --state"), group) == [[group, "Empty"]]
    described = rows(tools.run(f"groups --describe --group {group}"), group)
    assert [(row[1], row[2], row[5]) for row in described] == [(topic, "0", "0"), (topic, "1", "0")]
    assert sum(int(row[3]) for row in described) == 3
    unknown = tools.run(f"groups --describe --group {fresh('no-such-group')}")
    assert re.search("does not exist|not found", unknown), "as DescribeGroups 4 and 6 have it"
    reset = f"groups --reset-offsets --group {group} --topic {topic} --to-earliest --execute"
    assert rows(tools.run(reset), group) == [[group, topic, "0", "0"], [group, topic, "1", "0"]]
    deleted = tools.run(f"groups --delete-offsets --group {group} --topic {topic}:0")
    assert rows(deleted, topic) == [[topic, "0", "Successful"]]
    assert "successful" in tools.run(f"groups --delete --group {group}")
    _delete_records(tools, topic, tmp_path)


def _delete_records(tools: Tools, topic: str, folder: Path) -> None:
    ends = dict(_places(tools.run(f"offsets --topic {topic}").split()))
    places = [{"topic": topic, "partition": number, "offset": end} for number, end in ends.items()]
    file = folder / "offsets.json"
    file.write_text(json.dumps({"partitions": places, "version": 1}))
    said = tools.run("delete-records", "--offset-json-file", str(file))
    for number, end in ends.items():
        assert re.search(rf"partition: {topic}-{number}\s+low_watermark: {end}", said)


def _places(lines: Sequence[str]) -> list[tuple[int, int]]:
    return [(int(number), int(offset)) for _, number, offset in (line.rsplit(":", 2) for line in lines)]


def test_the_tool_for_transactions_answers_where_there_are_none(tools: Tools) -> None:
    said = tools.run("transactions list")
    assert said.split()[:4] == ["TransactionalId", "Coordinator", "ProducerId", "TransactionState"]
    topic = fresh("tools")
    tools.run(f"topics --create --topic {topic}")
    tools.run(f"produce --topic {topic}", given="one\n")
    (producer,) = tools.run(f"transactions describe-producers --topic {topic} --partition 0").splitlines()[1:]
    assert [producer.split()[each] for each in (1, 2, 3, 5)] == ["0", "-1", "0", "None"]
    hanging = tools.run("transactions find-hanging --broker-id 1").splitlines()
    assert [line.split()[0] for line in hanging] == ["Topic"]
    assert "Failed to describe" in tools.run(f"transactions describe --transactional-id {fresh('unknown')}")
