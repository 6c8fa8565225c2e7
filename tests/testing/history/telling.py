"""Histories to check, told event by event."""

from itertools import count

from octopus.events import TopicPartition
from octopus.testing.history import (
    Began,
    Committing,
    Event,
    Finished,
    Offered,
    Polled,
    Stored,
    check,
)

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


class Telling:
    """Builds a history: every event is a second after the one before."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._runs = count()

    @property
    def time(self) -> float:
        return float(len(self.events))

    def add(self, *kinds: type, **given: object) -> None:
        for kind in kinds:
            self.events.append(kind(time=self.time, **given))

    def stored(self, *offsets: int, at: TopicPartition = P0, key: str | None = None, wanted: bool = True) -> None:
        for offset in offsets:
            name = f"{at.partition}-{offset}"
            self.add(Offered, id=name, topic="t", key=key, wanted=wanted)
            self.add(Stored, id=name, at=at, offset=offset)

    def polled(self, *offsets: int, reader: str = "a", at: TopicPartition = P0) -> None:
        self.add(
            Polled, reader=reader, at=at, records=tuple((offset, f"{at.partition}-{offset}") for offset in offsets)
        )

    def began(self, *offsets: int, worker: str = "a", at: TopicPartition = P0) -> int:
        run = next(self._runs)
        for offset in offsets:
            self.add(Began, worker=worker, at=at, offset=offset, id=f"{at.partition}-{offset}", run=run)
        return run

    def ended(self, run: int, *offsets: int, worker: str = "a", at: TopicPartition = P0, failed: bool = False) -> None:
        for offset in offsets:
            name = f"{at.partition}-{offset}"
            self.add(Finished, worker=worker, at=at, offset=offset, id=name, run=run, failed=failed)

    def done(self, *offsets: int, worker: str = "a", at: TopicPartition = P0) -> None:
        for offset in offsets:
            self.ended(self.began(offset, worker=worker, at=at), offset, worker=worker, at=at)

    def committed(self, offset: int, at: TopicPartition = P0, who: str = "") -> None:
        self.add(Committing, group="g", offsets=((at, offset),), who=who)

    def kinds(self, **options: object) -> list[str]:
        return [anomaly.kind for anomaly in check(self.events, **options).anomalies]


def a_good_run() -> Telling:
    told = Telling()
    told.stored(0, 1, 2)
    told.polled(0, 1)
    told.done(0)
    told.committed(1, who="a")
    told.done(1)
    told.committed(1)
    told.polled(2)
    told.done(2)
    told.committed(3, who="a")
    told.committed(3)
    return told
