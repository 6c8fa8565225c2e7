"""Texts and lines are published as they are written, and a publication says where they went."""

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import msgspec
import pytest

from octopus.config import Settings
from octopus.errors import ConfigurationError, OperationFailed
from octopus.operations.publishing import BATCH, Envelope, PublishedEvents, Span, publish_batches, repeated
from octopus.transports.base import Outgoing, Transport


def ticking() -> Callable[[], float]:
    """Return a clock of which each look takes a second."""
    seconds = count()
    return lambda: float(next(seconds))


async def test_a_publication_says_how_many_events_went_where_and_is_told_batch_by_batch(
    transport: Transport, settings: Settings, fresh: str
) -> None:
    messages = [Envelope(fresh).message_of(text) for text in ('{"a": 1}', "text")]
    told: list[int] = []
    done = await publish_batches(
        transport,
        settings,
        fresh,
        repeated(messages, BATCH),
        clock=ticking(),
        advance=lambda so_far: told.append(so_far.count),
    )
    assert done == PublishedEvents(fresh, 2 * BATCH, 12 * BATCH, 3.0, {0: Span(0, 2 * BATCH - 1)})
    assert told == [BATCH, 2 * BATCH]
    assert msgspec.json.decode(msgspec.json.encode(done))["offsets"] == {"0": {"first": 0, "last": 2 * BATCH - 1}}


async def test_what_stands_before_a_bad_line_is_published(
    transport: Transport, settings: Settings, fresh: str, tmp_path: Path
) -> None:
    (tmp_path / "lines").write_bytes(b'{"id": "a"}\r\n\n{"id": "b"}\nno JSON\n{"id": "c"}')
    keys: list[bytes | None] = []

    async def lines() -> AsyncIterator[list[Outgoing]]:
        async for batch in Envelope(fresh, key_field="id").messages_of_lines(tmp_path / "lines"):
            keys.extend(message.key for message in batch)
            yield batch

    with pytest.raises(
        OperationFailed, match=r"Line 4 of .*lines is not JSON .*: no JSON\. The 3 lines before it were"
    ):
        await publish_batches(transport, settings, fresh, lines())
    assert keys == [b"a", b"b"]


@pytest.mark.parametrize(
    ("envelope", "text", "sentence"),
    [
        (Envelope("t"), "{no", "{no begins like JSON but is none"),
        (Envelope("t", key_field="id"), '{"name": 1}', "has no field 'id' to take the key from"),
        (Envelope("t", key_field="id"), "text", "has no field 'id' to take the key from"),
    ],
    ids=["half JSON", "no field", "no JSON"],
)
def test_a_value_that_cannot_be_published_is_named(envelope: Envelope, text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        envelope.message_of(text)


def test_keys_that_are_not_text_are_the_json_of_their_field() -> None:
    assert Envelope("t", key_field="id").message_of('{"id": [1, "x"]}').key == b'[1,"x"]'
