"""kcat, the command line of librdkafka 2.0: its own requests, and the codecs as the broker stores them."""

import json
import shutil
import subprocess

from tests.broker.clients.checking import Target, check, fresh, milliseconds_ago
from tests.broker.clients.wire import Connection, stored_attributes

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


@check(quick_on_kafka=True)
def lists_metadata(target: Target) -> None:
    topic = _create(target, "listed", partitions=3)
    listing = json.loads(_kcat(target, "-L", "-J"))
    (found,) = [one for one in listing["topics"] if one["topic"] == topic]
    assert len(found["partitions"]) == 3
    assert listing["brokers"]


@check(quick_on_kafka=True)
def produces_and_consumes_keys_and_headers(target: Target) -> None:
    topic = _create(target, "carried")
    _kcat(target, "-P", "-t", topic, "-p", "0", "-k", "key", "-H", "colour=red", stdin="one\ntwo\n")
    output = _kcat(target, "-C", "-t", topic, "-e", "-q", "-f", "%o %k %s %h\n")
    assert output.splitlines() == ["0 key one colour=red", "1 key two colour=red"]


@check(limit=60, races=True)
def consumes_as_a_group(target: Target) -> None:
    topic, group = _create(target, "grouped", partitions=2), fresh("group")
    for partition in ("0", "1"):
        _kcat(target, "-P", "-t", topic, "-p", partition, stdin="".join(f"{partition}-{n}\n" for n in range(10)))
    settings = ("-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=500")
    output = _kcat(target, "-q", *settings, "-c", "20", "-G", group, topic)
    assert sorted(output.split()) == sorted(f"{partition}-{n}" for partition in (0, 1) for n in range(10))


@check(quick_on_kafka=True)
def queries_offsets(target: Target) -> None:
    topic = _create(target, "queried")
    _kcat(target, "-P", "-t", topic, "-p", "0", stdin="a\nb\nc\n")
    assert _offset(_kcat(target, "-Q", "-t", f"{topic}:0:0")) == 0
    assert _offset(_kcat(target, "-Q", "-t", f"{topic}:0:-1")) == 3


@check(quick_on_kafka=True)
def starts_near_the_end_or_at_a_time(target: Target) -> None:
    topic = _create(target, "positions")
    before = milliseconds_ago(5)
    _kcat(target, "-P", "-t", topic, "-p", "0", stdin="a\nb\nc\n")
    assert _kcat(target, "-C", "-t", topic, "-p", "0", "-o", "-2", "-e", "-q").split() == ["b", "c"]
    assert _kcat(target, "-C", "-t", topic, "-p", "0", "-o", f"s@{before}", "-e", "-q").split() == ["a", "b", "c"]


@check(quick_on_kafka=True)
def stores_each_codec_as_sent(target: Target) -> None:
    """librdkafka 2.0 silently sends uncompressed what the broker's Produce versions do not allow."""
    for codec, number in CODECS.items():
        topic = _create(target, codec)
        lines = "".join(f"line {n} of many that look alike\n" for n in range(500))
        _kcat(target, "-P", "-t", topic, "-p", "0", "-z", codec, "-X", "linger.ms=500", stdin=lines)
        assert _kcat(target, "-C", "-t", topic, "-e", "-q") == lines, codec
        # A batch that would not get smaller is sent as it is, which a busy machine makes of the first few lines.
        assert number in {attributes & 7 for attributes in stored_attributes(target, topic)}, codec


def _create(target: Target, stem: str, partitions: int = 1) -> str:
    topic = fresh(stem)
    with Connection(target) as connection:
        connection.create_topic(topic, partitions)
    return topic


def _kcat(target: Target, *arguments: str, stdin: str = "") -> str:
    kcat = shutil.which("kcat")
    assert kcat is not None, "kcat is not installed"
    command = [kcat, "-b", target.bootstrap, "-X", "allow.auto.create.topics=false", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _offset(answer: str) -> int:
    return int(answer.rsplit("offset", 1)[1])
