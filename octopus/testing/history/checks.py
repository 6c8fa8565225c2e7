"""What of a history must never happen. Pure."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from octopus.events import TopicPartition
from octopus.ordering import Ordering
from octopus.testing.history.events import (
    Began,
    Buried,
    Committing,
    Ended,
    Event,
    Finished,
    Note,
    Offered,
    Polled,
    Refused,
    Stored,
)

Kind = Literal[
    "lost-write",
    "unseen",
    "duplicate",
    "duplicate-write",
    "poll-skip",
    "nonmonotonic-poll",
    "inconsistent-offsets",
    "aborted-read",
    "precommitted-read",
    "committed-past-unfinished",
    "commit-went-backwards",
    "order-broken",
    "ran-twice-at-once",
]


class Anomaly(NamedTuple):
    """What must not happen and did.

    Attributes:
        kind: Jepsen's word where there is one.
        message: One sentence with the coordinates.
    """

    kind: Kind
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class Report(msgspec.Struct, kw_only=True):
    """What `check` found.

    Attributes:
        anomalies: In the order of the checks.
        records: Acknowledged or seen.
        finished: Records with an effect.
        buried: Records in the dead-letter topic.
        duplicates: Effects beyond the first of a record.
        events: All of them.
        notes: How often each `Note.what` was noted.
    """

    anomalies: list[Anomaly]
    records: int
    finished: int
    buried: int
    duplicates: int
    events: int
    notes: dict[str, int]


def check(
    events: Iterable[Event],
    *,
    ordering: Ordering | Literal["batch"] = "none",
    duplicates: int | None = 0,
    complete: bool = True,
) -> Report:
    """Look for anomalies.

    Args:
        events: In any order.
        ordering: What the handlers were promised; `batch`: order of the partition, but the records of one batch are
            free among themselves.
        duplicates: Effects beyond the first that the faults of the run excuse; None for any number.
        complete: The run went on until everything was settled: what is not finished by now is lost.
    """
    history = _History(sorted(events, key=lambda event: event.time))
    anomalies = [
        *_inconsistent_offsets(history),
        *_duplicate_writes(history),
        *_poll_order(history),
        *_aborted_reads(history),
        *(_lost_writes(history) if complete else ()),
        *_commits(history),
        *_ran_twice_at_once(history),
        *(_order(history, ordering) if ordering != "none" else ()),
    ]
    excess = sum(len(times) - 1 for times in history.effects.values())
    if duplicates is not None and excess > duplicates:
        worst, times = max(history.effects.items(), key=lambda item: len(item[1]))
        anomalies.append(
            Anomaly(
                "duplicate",
                f"{excess} effects were repeated, {duplicates} are excused; {_spell(worst)} ran {len(times)} times",
            )
        )
    return Report(
        anomalies=anomalies,
        records=sum(map(len, history.log.values())),
        finished=len(history.effects),
        buried=len(history.buried),
        duplicates=excess,
        events=history.count,
        notes=dict(history.notes),
    )


Place = tuple[TopicPartition, int]


class _History:
    """The events, indexed."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.count = len(events)
        self.offered: dict[str, Offered] = {}
        self.refused: set[str] = set()
        self.ended: dict[str, Ended] = {}
        self.stored: dict[str, Place] = {}
        self.polls: defaultdict[tuple[str, TopicPartition], list[Polled]] = defaultdict(list)
        self.commits: list[Committing] = []
        self.begins: list[Began] = []
        self.runs: list[Began | Finished] = []
        self.effects: defaultdict[Place, list[float]] = defaultdict(list)
        self.ends: dict[Place, float] = {}  # first end of a run of a record, failed or not
        self.buried: dict[Place, float] = {}
        self.notes: Counter[str] = Counter()
        self.log: defaultdict[TopicPartition, dict[int, set[str]]] = defaultdict(dict)
        self.polled: set[Place] = set()
        for event in events:
            self._add(event)

    def _add(self, event: Event) -> None:
        match event:
            case Offered():
                self.offered[event.id] = event
            case Stored(id=name, at=at, offset=offset):
                self.stored[name] = (at, offset)
                self._see(at, offset, name)
            case Refused(id=name):
                self.refused.add(name)
            case Ended(transaction=name):
                self.ended[name] = event
            case Polled(reader=reader, at=at, records=records):
                self.polls[reader, at].append(event)
                for offset, name in records:
                    self._see(at, offset, name)
                    self.polled.add((at, offset))
            case Began(at=at, offset=offset, id=name):
                self.begins.append(event)
                self.runs.append(event)
                self._see(at, offset, name)
            case Finished(at=at, offset=offset, id=name, failed=failed):
                self.runs.append(event)
                self._see(at, offset, name)
                self.ends.setdefault((at, offset), event.time)
                if not failed:
                    self.effects[at, offset].append(event.time)
            case Buried(at=at, offset=offset, id=name):
                self._see(at, offset, name)
                self.buried.setdefault((at, offset), event.time)
            case Committing():
                self.commits.append(event)
            case Note(what=what):
                self.notes[what] += 1

    def _see(self, at: TopicPartition, offset: int, name: str) -> None:
        self.log[at].setdefault(offset, set()).add(name)

    def settled(self, place: Place) -> float | None:
        """Return the earliest moment at which a record may have been settled, or None."""
        effects = self.effects.get(place)
        times = [time for time in (effects[0] if effects else None, self.buried.get(place)) if time is not None]
        return min(times) if times else None

    def names(self, place: Place) -> set[str]:
        return self.log[place[0]].get(place[1], set())

    def is_wanted(self, place: Place) -> bool:
        """Tell whether a handler has to run; what nobody offered is taken to be wanted."""
        for name in self.names(place):
            offered = self.offered.get(name)
            if offered is not None and (not offered.wanted or self.is_aborted(name)):
                return False
        return True

    def is_aborted(self, name: str) -> bool:
        offered = self.offered.get(name)
        if offered is None or offered.transaction is None:
            return False
        ended = self.ended.get(offered.transaction)
        return ended is not None and not ended.committed

    def key(self, place: Place) -> str | None:
        return next((self.offered[name].key for name in self.names(place) if name in self.offered), None)


def _inconsistent_offsets(history: _History) -> Iterator[Anomaly]:
    for at, log in history.log.items():
        for offset, names in log.items():
            if len(names) > 1:
                yield Anomaly("inconsistent-offsets", f"{at}@{offset} is {' and '.join(sorted(names))}")


def _duplicate_writes(history: _History) -> Iterator[Anomaly]:
    places: defaultdict[str, set[Place]] = defaultdict(set)
    for at, log in history.log.items():
        for offset, names in log.items():
            for name in names:
                places[name].add((at, offset))
    for name, found in places.items():
        if len(found) > 1:
            yield Anomaly("duplicate-write", f"{name} is stored at {', '.join(map(_spell, sorted(found)))}")


def _poll_order(history: _History) -> Iterator[Anomaly]:
    for (reader, at), polls in history.polls.items():
        polled = [offset for poll in polls for offset, _ in poll.records]
        known = sorted(history.log[at])
        index = {offset: number for number, offset in enumerate(known)}
        for before, after in pairwise(polled):
            if after <= before:
                yield Anomaly("nonmonotonic-poll", f"{reader} read {at}@{after} after {before}")
                continue
            skipped = [
                offset
                for offset in known[index[before] + 1 : index[after]]
                if not any(map(history.is_aborted, history.names((at, offset))))
            ]
            if skipped:
                yield Anomaly("poll-skip", f"{reader} went from {at}@{before} to {after} past {skipped[:5]}")


def _aborted_reads(history: _History) -> Iterator[Anomaly]:
    for polls in history.polls.values():
        for poll in polls:
            for offset, name in poll.records:
                place = _spell((poll.at, offset))
                if name in history.refused or history.is_aborted(name):
                    yield Anomaly("aborted-read", f"{poll.reader} read {name} at {place}, which was given up")
                    continue
                offered = history.offered.get(name)
                transaction = offered.transaction if offered is not None else None
                if transaction is None:
                    continue
                ended = history.ended.get(transaction)
                if ended is None or ended.time > poll.time:
                    yield Anomaly(
                        "precommitted-read", f"{poll.reader} read {name} at {place} before {transaction} was committed"
                    )


def _lost_writes(history: _History) -> Iterator[Anomaly]:
    highest: dict[TopicPartition, int] = {}
    for at, offset in history.polled:
        highest[at] = max(offset, highest.get(at, -1))
    for at, log in history.log.items():
        for offset in sorted(log):
            place = (at, offset)
            if not history.is_wanted(place) or history.settled(place) is not None:
                continue
            names = ", ".join(sorted(log[offset]))
            if history.polled and offset > highest.get(at, -1):
                yield Anomaly("unseen", f"{names} at {_spell(place)} was stored and never read")
            else:
                yield Anomaly("lost-write", f"{names} at {_spell(place)} has no effect and no grave")


def _commits(history: _History) -> Iterator[Anomaly]:
    """Each committed offset, at every moment, against the latest settling of anything before it."""
    # Over the log in order: the time at which everything up to here was settled, and the record that took longest.
    prefixes: dict[TopicPartition, tuple[list[int], list[tuple[float, int]]]] = {}
    for at, log in history.log.items():
        offsets = sorted(offset for offset in log if history.is_wanted((at, offset)))
        latest = (float("-inf"), -1)
        prefix = []
        for offset in offsets:
            settled = history.settled((at, offset))
            latest = max(latest, (float("inf") if settled is None else settled, offset))
            prefix.append(latest)
        prefixes[at] = offsets, prefix
    looked: dict[tuple[str, TopicPartition], int] = {}
    for commit in history.commits:
        for at, offset in commit.offsets:
            if not commit.who:
                before = looked.get((commit.group, at), offset)
                if offset < before:
                    yield Anomaly("commit-went-backwards", f"{commit.group} had {before} of {at}, then {offset}")
                looked[commit.group, at] = offset
            offsets, prefix = prefixes.get(at, ([], []))
            count = bisect_left(offsets, offset)
            if count and prefix[count - 1][0] > commit.time:
                _, open_offset = prefix[count - 1]
                yield Anomaly(
                    "committed-past-unfinished",
                    f"{commit.who or commit.group} committed {offset} of {at} at {commit.time:.3f} while "
                    f"{open_offset} was not finished",
                )


def _ran_twice_at_once(history: _History) -> Iterator[Anomaly]:
    running: dict[tuple[str, Place], int] = {}
    for event in history.runs:
        run = event.worker, (event.at, event.offset)
        if isinstance(event, Finished):
            if running.get(run) == event.run:
                del running[run]
        elif run in running:
            yield Anomaly(
                "ran-twice-at-once", f"{event.worker} began {_spell(run[1])} again while run {running[run]} had it"
            )
        else:
            running[run] = event.run


def _order(history: _History, ordering: Ordering | Literal["batch"]) -> Iterator[Anomaly]:
    """A record may begin when every earlier one of its lane was settled, by whomever; in batches: had run."""
    lanes: defaultdict[tuple[TopicPartition, str | None], list[int]] = defaultdict(list)
    for at, log in history.log.items():
        for offset in sorted(log):
            place = (at, offset)
            key = history.key(place) if ordering == "key" else None
            if history.is_wanted(place) and not (ordering == "key" and key is None):
                lanes[at, key].append(offset)
    first_begins: dict[Place, Began] = {}
    members: defaultdict[tuple[str, int], set[Place]] = defaultdict(set)
    for begin in history.begins:
        first_begins.setdefault((begin.at, begin.offset), begin)
        members[begin.worker, begin.run].add((begin.at, begin.offset))
    for (at, key), offsets in lanes.items():
        latest, latest_offset = float("-inf"), -1
        for offset in offsets:
            place = (at, offset)
            first = first_begins.get(place)
            if first is not None and latest > first.time:
                together = (at, latest_offset) in members[first.worker, first.run]
                if not (ordering == "batch" and together):
                    lane = f"key {key!r} of {at}" if key is not None else str(at)
                    yield Anomaly("order-broken", f"{offset} of {lane} began before {latest_offset} was settled")
            # Of a batch, what cannot be decoded never begins, and what is given up is buried after the rest of it ran.
            settled = history.ends.get(place) if ordering == "batch" else history.settled(place) or float("inf")
            if settled is not None and settled > latest:
                latest, latest_offset = settled, offset


def _spell(place: Place) -> str:
    return f"{place[0]}@{place[1]}"
