"""The guide says which versions the embedded broker serves, and which Apache Kafka does."""

import re
from pathlib import Path

import pytest

from octopus.broker.api import TABLE
from octopus.broker.server import Broker
from octopus.broker.topics import WITHOUT_EFFECT
from tests.broker.requests_and_answers import API_VERSIONS
from tests.broker.wire_client import connected

GUIDE = Path(__file__).parents[3] / "docs" / "operating.md"
ROW = re.compile(r"^\| (\w+) \| (\d+)(?:–(\d+))? \| (\d+) \|", re.MULTILINE)
ROWS = {
    name: (int(least), int(most or least), int(newest)) for name, least, most, newest in ROW.findall(GUIDE.read_text())
}

MISSING = {
    27: "WriteTxnMarkers", 29: "DescribeAcls", 30: "CreateAcls", 31: "DeleteAcls", 34: "AlterReplicaLogDirs",
    38: "CreateDelegationToken", 39: "RenewDelegationToken", 40: "ExpireDelegationToken", 41: "DescribeDelegationToken",
    43: "ElectLeaders", 45: "AlterPartitionReassignments", 46: "ListPartitionReassignments", 48: "DescribeClientQuotas",
    49: "AlterClientQuotas", 50: "DescribeUserScramCredentials", 51: "AlterUserScramCredentials", 55: "DescribeQuorum",
    57: "UpdateFeatures", 60: "DescribeCluster", 64: "UnregisterBroker", 68: "ConsumerGroupHeartbeat",
    69: "ConsumerGroupDescribe", 74: "ListConfigResources", 76: "ShareGroupHeartbeat", 77: "ShareGroupDescribe",
    78: "ShareFetch", 79: "ShareAcknowledge", 80: "AddRaftVoter", 81: "RemoveRaftVoter", 83: "InitializeShareGroupState",
    84: "ReadShareGroupState", 85: "WriteShareGroupState", 86: "DeleteShareGroupState", 87: "ReadShareGroupStateSummary",
    88: "StreamsGroupHeartbeat", 89: "StreamsGroupDescribe", 90: "DescribeShareGroupOffsets",
    91: "AlterShareGroupOffsets", 92: "DeleteShareGroupOffsets", 93: "StreamsGroupTopologyDescriptionUpdate",
    94: "UnregisterController",
}  # fmt: skip
"""What Apache Kafka serves and the embedded broker does not."""


def test_the_guide_says_of_every_api_that_is_missing_what_a_program_meets() -> None:
    rows = re.findall(r"^\| [^|]+ \| ((?:\w+, )*\w+) \| ([^|]+) \|$", GUIDE.read_text(), re.MULTILINE)
    named = [name for names, meets in rows for name in names.split(", ") if meets.strip() and names != "APIs"]
    assert sorted(set(named) & set(MISSING.values())) == sorted(MISSING.values())
    assert not TABLE.keys() & MISSING.keys()


@pytest.mark.parametrize("key", MISSING, ids=MISSING.values())
async def test_who_asks_for_what_is_missing_loses_the_connection(broker: Broker, key: int) -> None:
    async with connected(broker.address) as client:
        await client.put(key, 0)
        assert await client.is_closed()


def test_the_guide_names_every_api_with_the_versions_that_are_served() -> None:
    served = {api.name: (max(api.least, api.serves_from), api.most) for api in TABLE.values()}
    assert {name: versions[:2] for name, versions in ROWS.items()} == served


@pytest.mark.kafka
async def test_the_guide_names_the_newest_version_of_apache_kafka(kafka_cluster: str) -> None:
    async with connected(kafka_cluster) as client:
        answer = await client.ask(API_VERSIONS, 0)
        answer.int16()
        newest = {key: most for key, _, most in answer.array(lambda: (answer.int16(), answer.int16(), answer.int16()))}
    assert set(newest) == TABLE.keys() | MISSING.keys()
    asked = {api.name: newest[key] for key, api in TABLE.items() if key in newest}
    assert {name: versions[2] for name, versions in ROWS.items() if name in asked} == asked


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT))
def test_the_guide_names_every_setting_of_topics_that_has_no_effect(key: str) -> None:
    named = key if not key.startswith("flush.") else "flush.*"
    paragraphs = [" ".join(each.split()) for each in GUIDE.read_text(encoding="utf-8").split("\n\n")]
    (listed,) = [each.partition("change nothing:")[2] for each in paragraphs if "change nothing:" in each]
    assert named in listed
