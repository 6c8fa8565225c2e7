"""Histories of systems that keep their word are not accused, and what is taken out of them is missed."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.events import TopicPartition
from octopus.testing.history import (
    Committing,
    DeadLettered,
    Finished,
    check,
)
from tests.testing.history.telling import P0, P1, Telling


class Honest:
    """A system that keeps its word, told at random: workers take over from each other and repeat what was not committed."""

    def __init__(self, chance: random.Random, ordering: str) -> None:
        self.told = Telling()
        self.repeated = 0
        self._chance = chance
        self._ordering = ordering

    def tell(self) -> None:
        told, chance = self.told, self._chance
        for at in (P0, P1):
            offset = 0
            offsets = []
            for _ in range(chance.randrange(12)):
                offset += chance.choice([1, 1, 1, 3])
                told.stored(offset, at=at, key=chance.choice("xyz"))
                offsets.append(offset)
            done: set[int] = set()
            committed = 0
            for number in range(4):
                last = number == 3
                committed = self._work(
                    f"w{number}", at, [each for each in offsets if each >= committed], done, last, committed
                )

    def _work(self, worker: str, at: TopicPartition, offsets: list[int], done: set[int], last: bool, base: int) -> int:
        told, chance = self.told, self._chance
        for offset in offsets:
            told.polled(offset, reader=worker, at=at)
        settled: set[int] = set()
        order = [*offsets]
        if self._ordering == "none":
            chance.shuffle(order)
        for offset in order:
            if not last and chance.random() < 0.2:
                told.began(offset, worker=worker, at=at)  # and is killed
                break
            if chance.random() < 0.2:
                told.ended(told.began(offset, worker=worker, at=at), offset, worker=worker, at=at, failed=True)
            if chance.random() < 0.1:
                told.add(DeadLettered, at=at, offset=offset, id=f"{at.partition}-{offset}")
            else:
                told.done(offset, worker=worker, at=at)
                self.repeated += offset in done
                done.add(offset)
            settled.add(offset)
            if chance.random() < 0.3:
                told.committed(self._committable(offsets, settled, base), at=at, who=worker)
                told.committed(self._committable(offsets, settled, base), at=at)
        committed = self._committable(offsets, settled, base)
        if chance.random() < 0.5 or last:
            told.committed(committed, at=at, who=worker)
            told.committed(committed, at=at)
            return committed
        seen = [each.offsets[0][1] for each in told.events if isinstance(each, Committing) and each.offsets[0][0] == at]
        return seen[-1] if seen else 0

    @staticmethod
    def _committable(offsets: list[int], settled: set[int], base: int) -> int:
        left = [offset for offset in offsets if offset not in settled]
        return left[0] if left else (offsets[-1] + 1 if offsets else base)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["partition", "key", "none"]))
def test_no_honest_history_is_accused(chance: random.Random, ordering: str) -> None:
    honest = Honest(chance, ordering)
    honest.tell()
    report = check(honest.told.events, ordering=ordering, duplicates=honest.repeated)
    assert report.anomalies == []
    assert report.duplicates == honest.repeated


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_effect_that_is_taken_out_of_an_honest_history_is_missed(chance: random.Random) -> None:
    honest = Honest(chance, "none")
    honest.tell()
    effects = {(event.at, event.offset) for event in honest.told.events if isinstance(event, Finished)}
    if not effects:
        return
    at, offset = chance.choice(sorted(effects))
    left = [
        event
        for event in honest.told.events
        if not (isinstance(event, Finished | DeadLettered) and (event.at, event.offset) == (at, offset))
    ]
    kinds = {anomaly.kind for anomaly in check(left, duplicates=None).anomalies}
    assert "lost-write" in kinds
    assert "committed-past-unfinished" in kinds
