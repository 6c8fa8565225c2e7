"""The guide says which versions the embedded broker serves, and which Apache Kafka does."""

import re
from pathlib import Path

import pytest
from requests_and_answers import API_VERSIONS
from wire_client import connected

from octopus.broker.api import TABLE
from octopus.broker.topics import WITHOUT_EFFECT

GUIDE = Path(__file__).parents[3] / "docs" / "operating.md"
ROW = re.compile(r"^\| (\w+) \| (\d+)(?:–(\d+))? \| (\d+) \|", re.MULTILINE)
ROWS = {
    name: (int(least), int(most or least), int(newest)) for name, least, most, newest in ROW.findall(GUIDE.read_text())
}


def test_the_guide_names_every_api_with_the_versions_that_are_served() -> None:
    served = {api.name: (max(api.least, api.serves_from), api.most) for api in TABLE.values()}
    assert {name: versions[:2] for name, versions in ROWS.items()} == served


@pytest.mark.kafka
async def test_the_guide_names_the_newest_version_of_apache_kafka(kafka_cluster: str) -> None:
    async with connected(kafka_cluster) as client:
        answer = await client.ask(API_VERSIONS, 0)
        answer.int16()
        newest = {key: most for key, _, most in answer.array(lambda: (answer.int16(), answer.int16(), answer.int16()))}
    asked = {api.name: newest[key] for key, api in TABLE.items() if key in newest}
    assert {name: versions[2] for name, versions in ROWS.items() if name in asked} == asked


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT))
def test_the_guide_names_every_setting_of_topics_that_has_no_effect(key: str) -> None:
    named = key if not key.startswith("flush.") else "flush.*"
    assert named in GUIDE.read_text().partition("change nothing:")[2].partition("\n\n")[0]
