"""Reading what a Kafka event source mapping sends."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus import Record
from octopus.errors import ConfigurationError
from octopus.events import TopicPartition
from octopus.triggers.aws import decode
from tests.triggers.lambda_events import encode

MSK = {
    "eventSource": "aws:kafka",
    "eventSourceArn": "arn:aws:kafka:us-east-1:012345678901:cluster/Sales/abcd1234-abcd-cafe-abab-9876543210ab-4",
    "bootstrapServers": "b-2.demo.amazonaws.com:9092,b-1.demo.amazonaws.com:9092",
    "records": {
        "mytopic-0": [
            {
                "topic": "mytopic",
                "partition": 0,
                "offset": 15,
                "timestamp": 1545084650987,
                "timestampType": "CREATE_TIME",
                "key": "cmVjb3JkS2V5",
                "value": "eyJrZXkiOiJ2YWx1ZSJ9",
                "headers": [{"headerKey": [104, 105, -61, -87]}],
            }
        ]
    },
}
SELF_MANAGED = {key: value for key, value in MSK.items() if key != "eventSourceArn"} | {
    "eventSource": "SelfManagedKafka"
}
RECORD = Record("mytopic", 0, 15, 1545084650987, b"recordKey", b'{"key":"value"}', (("headerKey", "hié".encode()),))


@pytest.mark.parametrize(
    "event",
    [MSK, SELF_MANAGED, SELF_MANAGED | {"eventSource": "aws:SelfManagedKafka"}],
    ids=["msk", "self-managed", "self-managed, older spelling"],
)
def test_the_documented_events_are_read(event: dict[str, object]) -> None:
    decoded = decode(event)
    assert decoded.records == {TopicPartition("mytopic", 0): [RECORD]}
    assert decoded.bootstrap_servers == ("b-2.demo.amazonaws.com:9092", "b-1.demo.amazonaws.com:9092")


ENTRY = {"topic": "t", "partition": 0, "offset": 1, "timestamp": 5, "timestampType": "LOG_APPEND_TIME"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (ENTRY, Record("t", 0, 1, 5)),
        (ENTRY | {"key": None, "value": None, "headers": None}, Record("t", 0, 1, 5)),
        (ENTRY | {"key": "", "value": ""}, Record("t", 0, 1, 5, b"", b"")),
        (
            ENTRY | {"headers": [{"a": [1]}, {"b": []}, {"a": [-1]}]},
            Record("t", 0, 1, 5, headers=(("a", b"\1"), ("b", b""), ("a", b"\xff"))),
        ),
        (ENTRY | {"headers": [{"a": None}]}, Record("t", 0, 1, 5, headers=(("a", None),))),
        (ENTRY | {"valueSchemaMetadata": {"dataFormat": "JSON", "schemaId": "1"}}, Record("t", 0, 1, 5)),
        ({"offset": 1, "timestamp": 5}, Record("a-dashed-topic", 7, 1, 5)),
    ],
    ids=["bare", "nulls", "empty", "headers", "null header", "schema", "named by its list only"],
)
def test_fields_may_be_missing(entry: dict[str, object], expected: Record) -> None:
    records = decode(SELF_MANAGED | {"records": {"a-dashed-topic-7": [entry]}}).records
    assert [record for partition in records.values() for record in partition] == [expected]


def test_the_records_own_coordinates_win_over_the_name_of_their_list() -> None:
    entry = ENTRY | {"topic": "a-1", "partition": 2}
    assert [*decode(SELF_MANAGED | {"records": {"a-1-2": [entry]}}).records] == [TopicPartition("a-1", 2)]


def test_records_are_put_in_order_and_repeated_ones_dropped() -> None:
    entries = [ENTRY | {"offset": offset} for offset in (3, 1, 3, 2)]
    (records,) = decode(SELF_MANAGED | {"records": {"t-0": entries}}).records.values()
    assert [record.offset for record in records] == [1, 2, 3]


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ("hello", "not a str"),
        ({}, "eventSource is None"),
        ({"eventSource": "aws:sqs", "Records": []}, "eventSource is 'aws:sqs'"),
        ({"eventSource": "aws:kafka"}, "no records by partition; records is None"),
        ({"eventSource": "aws:kafka", "records": []}, r"records is \[\]"),
        (
            {"eventSource": "aws:kafka", "records": {"t-0": 3}},
            r"records\['t-0'\] of the Kafka event is not a list but 3",
        ),
        ({"eventSource": "aws:kafka", "records": {"t-0": [{}]}}, r"records\['t-0'\]\[0\].*KeyError: 'offset'"),
        ({"eventSource": "aws:kafka", "records": {"t": [{"offset": 1}]}}, r"records\['t'\]\[0\]"),
        ({"eventSource": "aws:kafka", "records": {"t-0": [ENTRY | {"value": "*"}]}}, r"'\*' is not base64"),
        ({"eventSource": "aws:kafka", "records": {"t-0": [ENTRY, None]}}, r"records\['t-0'\]\[1\]"),
    ],
)
def test_anything_else_is_refused_with_its_place(event: object, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        decode(event)


names = st.text("abc-._19", min_size=1, max_size=8)
bytes_or_none = st.none() | st.binary(max_size=20)


@st.composite
def batches(draw: st.DrawFn) -> list[Record]:
    records: list[Record] = []
    for topic, partition in draw(st.sets(st.tuples(names, st.integers(0, 12)), max_size=4)):
        for offset in sorted(draw(st.sets(st.integers(0, 2**53), max_size=5))):
            records.append(
                Record(
                    topic,
                    partition,
                    offset,
                    draw(st.integers(0, 2**41)),
                    draw(bytes_or_none),
                    draw(bytes_or_none),
                    tuple(draw(st.lists(st.tuples(names, bytes_or_none), max_size=3))),
                )
            )
    return records


@given(batches(), st.sampled_from(["aws:kafka", "SelfManagedKafka"]))
def test_what_is_encoded_is_decoded_again(records: list[Record], source: str) -> None:
    decoded = decode(json.loads(json.dumps(encode(records, source=source)))).records
    assert sorted((r for each in decoded.values() for r in each), key=_place) == sorted(records, key=_place)
    assert all(
        record.topic == at.topic and record.partition == at.partition for at, each in decoded.items() for record in each
    )


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset
