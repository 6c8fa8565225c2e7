"""What of a history must never happen. Pure."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from octopus.events import TopicPartition
from octopus.routing import Ordering
from octopus.testing.history.events import (
    Began,
    Committing,
    DeadLettered,
    Ended,
    Event,
    Finished,
    Note,
    Offered,
    Polled,
    Refused,
    Stored,
)
from octopus.testing.history.report import Anomaly, Report


def check(
    events: Iterable[Event],
    *,
    ordering: Ordering | Literal["batch"] = "none",
    duplicates: int | None = 0,
    complete: bool = True,
    outputs: Collection[str] = (),
    published: Mapping[str, Collection[str]] = {},
) -> Report:
    """Look for anomalies.

    Args:
        events: In any order.
        ordering: What the handlers were promised; `batch`: order of the partition, but the records of one batch are
            free among themselves.
        duplicates: Effects beyond the first that the faults of the run excuse; None for any number.
        complete: The run went on until everything was settled: what is not finished by now is lost.
        outputs: Topics to which the handlers publish exactly one record for each of theirs, exactly once; any other topic
            with outputs is one of dead letters. Readers of both must have been at the end. When none is given, an effect
            is a handler's run that ended well.
        published: For a topic that handlers read, those to which they publish a record for each of its own, at least once. Such a
            record is settled when one in each is acknowledged, or when it is a dead letter.
    """
    history = _History(sorted(events, key=lambda event: event.time), frozenset(outputs), published)
    anomalies = [
        *_inconsistent_offsets(history),
        *_duplicate_writes(history),
        *_poll_order(history),
        *_aborted_reads(history),
        *(_lost_writes(history) if complete else ()),
        *_commits(history),
        *_ran_twice_at_once(history),
        *(_transactions(history) if complete and outputs else ()),
        *(_published(history) if complete and published else ()),
    ]
    if outputs or published:
        anomalies += _output_order(history, ordering)
    if not outputs and ordering != "none":
        anomalies += _order(history, ordering)
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
        records=sum(not history.is_output((at, offset)) for at, log in history.log.items() for offset in log),
        finished=len(history.effects),
        dead_lettered=len(history.dead_lettered),
        duplicates=excess,
        events=history.count,
        notes=dict(history.notes),
        outputs=len(history.visible),
        hidden=len(history.glimpsed - history.visible.keys()),
        transactions=len(history.acknowledged),
        undecided=len(history.transactions.keys() - history.acknowledged),
    )


Place = tuple[TopicPartition, int]

_NEVER = float("inf")


class _History:
    """The events, indexed.

    Attributes:
        read: Ids that a reader of committed records saw.
        effects: Times of a record's effects; where outputs are effects, of those in the topic that has most of them.
        outcome: Of a record, the topics in which its outputs and dead letters are visible, and the transaction of each.
        visible: Outputs that a reader of committed records saw, with their places.
        glimpsed: Outputs that a reader saw.
        transactions: What is in each.
        acknowledged_outputs: When the first output of a record was acknowledged, by the record's id and the output's topic.
    """

    def __init__(
        self, events: Sequence[Event], outputs: frozenset[str], published: Mapping[str, Collection[str]]
    ) -> None:
        self.count = len(events)
        self.output_topics = outputs
        self.published = published
        self.published_topics = frozenset(topic for topics in published.values() for topic in topics)
        self.acknowledged_outputs: dict[tuple[str, str], float] = {}
        self.acknowledged: set[str] = set()
        self.with_offsets: set[str] = set()
        self.transactions: defaultdict[str, list[Offered]] = defaultdict(list)
        self.visible: dict[str, Place] = {}
        self.glimpsed: set[str] = set()
        self.read: set[str] = set()
        self.outcome: defaultdict[Place, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
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
        self.dead_lettered: dict[Place, float] = {}
        self.notes: Counter[str] = Counter()
        self.log: defaultdict[TopicPartition, dict[int, set[str]]] = defaultdict(dict)
        self.polled: set[Place] = set()
        for event in events:
            self._add(event)
        if outputs:
            self._settle_by_outputs()

    def _add(self, event: Event) -> None:
        match event:
            case Offered():
                self.offered[event.id] = event
                if event.transaction is not None:
                    self.transactions[event.transaction].append(event)
            case Stored(id=name, at=at, offset=offset):
                self.stored[name] = (at, offset)
                self._see(at, offset, name)
                if name in self.offered and (of := self.offered[name].of) is not None:
                    self.acknowledged_outputs.setdefault((of, at.topic), event.time)
            case Refused(id=name):
                self.refused.add(name)
            case Ended(transaction=name, acknowledged=acknowledged):
                self.ended.setdefault(name, event)
                if acknowledged:
                    self.acknowledged.add(name)
            case Polled(reader=reader, at=at, records=records):
                self.polls[reader, at].append(event)
                for offset, name in records:
                    self._see(at, offset, name)
                    self.polled.add((at, offset))
                    if not event.uncommitted:
                        self.read.add(name)
                    if name in self.offered and self.offered[name].of is not None:
                        self.glimpsed.add(name)
                        if not event.uncommitted:
                            self.visible[name] = (at, offset)
            case Began(at=at, offset=offset, id=name):
                self.begins.append(event)
                self.runs.append(event)
                self._see(at, offset, name)
            case Finished(at=at, offset=offset, id=name, failed=failed):
                self.runs.append(event)
                self._see(at, offset, name)
                self.ends.setdefault((at, offset), event.time)
                if not failed and not self.output_topics:
                    self.effects[at, offset].append(event.time)
            case DeadLettered(at=at, offset=offset, id=name):
                self._see(at, offset, name)
                self.dead_lettered.setdefault((at, offset), event.time)
            case Committing():
                self.commits.append(event)
                if event.transaction is not None:
                    self.with_offsets.add(event.transaction)
            case Note(what=what):
                self.notes[what] += 1

    def _settle_by_outputs(self) -> None:
        """Take visible outputs for effects, and the moment at which their commit was asked for as theirs."""
        places = {name: (at, offset) for at, log in self.log.items() for offset, names in log.items() for name in names}
        times: defaultdict[tuple[Place, str], list[float]] = defaultdict(list)
        for name, (at, _) in self.visible.items():
            offered = self.offered[name]
            place = places.get(offered.of or "")
            if place is None or offered.transaction is None:
                continue
            ended = self.ended.get(offered.transaction)
            self.outcome[place][at.topic].append(offered.transaction)
            times[place, at.topic].append(ended.time if ended is not None else float("inf"))
        for (place, topic), found in times.items():
            if topic not in self.output_topics:
                self.dead_lettered[place] = min(found)
            if topic in self.output_topics or len(found) > 1:
                self.effects[place] = max(self.effects.get(place, []), sorted(found), key=len)

    def _see(self, at: TopicPartition, offset: int, name: str) -> None:
        self.log[at].setdefault(offset, set()).add(name)

    def finished(self, place: Place) -> float | None:
        """Return the earliest moment at which the next record of its lane may begin, or None."""
        effects = self.effects.get(place)
        return _earliest(effects[0] if effects else None, self.dead_lettered.get(place))

    def settled(self, place: Place) -> float | None:
        """Return the earliest moment at which a record may have been settled, or None."""
        if not (topics := self.published.get(place[0].topic)):
            return self.finished(place)
        return _earliest(self._published(place, topics), self.dead_lettered.get(place))

    def _published(self, place: Place, topics: Collection[str]) -> float | None:
        """Return when an output of a record was acknowledged in each topic, or None."""
        times = [
            min([self.acknowledged_outputs.get((name, topic), _NEVER) for name in self.names(place)], default=_NEVER)
            for topic in topics
        ]
        return latest if (latest := max(times)) < _NEVER else None

    def names(self, place: Place) -> set[str]:
        return self.log[place[0]].get(place[1], set())

    def is_wanted(self, place: Place) -> bool:
        """Tell whether a handler has to run; an event that was not offered is taken to be wanted."""
        for name in self.names(place):
            offered = self.offered.get(name)
            if offered is not None and (not offered.wanted or offered.of is not None or not self.is_there(offered)):
                return False
        return True

    def is_output(self, place: Place) -> bool:
        return any(name in self.offered and self.offered[name].of is not None for name in self.names(place))

    def took_place(self, transaction: str) -> bool:
        """Tell whether a transaction is known to be committed."""
        writes = self.transactions.get(transaction, ())
        return transaction in self.acknowledged or any(each.id in self.read for each in writes)

    def is_there(self, offered: Offered) -> bool:
        """Tell whether a handler may wait for a record: not when its transaction is aborted, or perhaps is."""
        return offered.transaction is None or self.took_place(offered.transaction)

    def may_be_hidden(self, name: str) -> bool:
        """Tell whether readers of committed records may go past a record: it is not confirmed that it is committed."""
        offered = self.offered.get(name)
        if offered is None or offered.transaction is None:
            return False
        return offered.transaction not in self.acknowledged and name not in self.read

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
        sees_all = any(poll.uncommitted for poll in polls)
        for before, after in pairwise(polled):
            if after <= before:
                yield Anomaly("nonmonotonic-poll", f"{reader} read {at}@{after} after {before}")
                continue
            skipped = [
                offset
                for offset in known[index[before] + 1 : index[after]]
                if sees_all or not any(map(history.may_be_hidden, history.names((at, offset))))
            ]
            if skipped:
                yield Anomaly("poll-skip", f"{reader} went from {at}@{before} to {after} past {skipped[:5]}")


def _aborted_reads(history: _History) -> Iterator[Anomaly]:
    for polls in history.polls.values():
        for poll in polls:
            if poll.uncommitted:
                continue
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
                yield Anomaly("lost-write", f"{names} at {_spell(place)} has no effect and no dead letter")


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
        moment = commit.time
        if commit.transaction is not None:
            ended = history.ended.get(commit.transaction)
            if ended is None or not history.took_place(commit.transaction):
                continue  # offsets of no record
            moment = ended.time
        for at, offset in commit.offsets:
            if not commit.who:
                before = looked.get((commit.group, at), offset)
                if offset < before:
                    yield Anomaly("commit-went-backwards", f"{commit.group} had {before} of {at}, then {offset}")
                looked[commit.group, at] = offset
            offsets, prefix = prefixes.get(at, ([], []))
            count = bisect_left(offsets, offset)
            if count and prefix[count - 1][0] > moment:
                _, open_offset = prefix[count - 1]
                yield Anomaly(
                    "committed-past-unfinished",
                    f"{commit.who or commit.group} committed {offset} of {at} at {moment:.3f} while "
                    f"{open_offset} was not finished",
                )


def _transactions(history: _History) -> Iterator[Anomaly]:
    """All of a transaction is visible or nothing, offsets included; all outputs of a record, once each, or its dead letter."""
    for transaction, offered in history.transactions.items():
        has_outputs = any(each.of is not None for each in offered)
        if has_outputs and history.took_place(transaction) and transaction not in history.with_offsets:
            yield Anomaly("torn-transaction", f"{transaction} has outputs and no offsets")
        missing = [each for each in offered if each.of is not None and each.id not in history.visible]
        if not missing:
            continue
        of = f"{missing[0].id} in {missing[0].topic}"
        if transaction in history.acknowledged:
            yield Anomaly("lost-output", f"{transaction} is committed and {of} is not visible")
        elif len(missing) < len(offered):
            yield Anomaly("torn-transaction", f"{transaction} is visible without {of}")
    for place, found in history.outcome.items():
        kept = found.keys() - history.output_topics
        if kept and len(found) > len(kept):
            yield Anomaly("torn-transaction", f"{_spell(place)} has outputs in {', '.join(sorted(found))}")
        elif not kept and (missing_topics := history.output_topics - found.keys()):
            yield Anomaly("lost-output", f"{_spell(place)} has no output in {', '.join(sorted(missing_topics))}")
        if len({transaction for transactions in found.values() for transaction in transactions}) > 1:
            yield Anomaly("torn-transaction", f"the outputs of {_spell(place)} are of several transactions")


def _published(history: _History) -> Iterator[Anomaly]:
    """What is acknowledged is there; a record that a handler has done has an output in each topic."""
    for name, (at, offset) in history.stored.items():
        if at.topic in history.published_topics and name not in history.visible:
            yield Anomaly("lost-output", f"{name} was acknowledged at {_spell((at, offset))} and is not there")
    found = {(history.offered[name].of, at.topic) for name, (at, _) in history.visible.items()}
    for place in history.effects:
        for topic in history.published.get(place[0].topic, ()):
            if place not in history.dead_lettered and not any((name, topic) in found for name in history.names(place)):
                yield Anomaly("lost-output", f"{_spell(place)} has no output in {topic}")


def _output_order(history: _History, ordering: Ordering | Literal["batch"]) -> Iterator[Anomaly]:
    """The first outputs of a lane's records are visible in the order of these records."""
    if ordering in ("none", "batch"):
        return
    origins = {
        name: (at, offset)
        for at, log in history.log.items()
        for offset, names in log.items()
        for name in names
        if name in history.offered and history.offered[name].of is None
    }
    latest: dict[tuple[TopicPartition, TopicPartition, str | None], int] = {}
    seen: set[tuple[TopicPartition, Place]] = set()
    for name, (at, offset) in sorted(history.visible.items(), key=lambda item: item[1]):
        origin = origins.get(history.offered[name].of or "")
        if origin is None or at.topic not in history.output_topics | history.published_topics:
            continue
        if at.topic in history.published_topics:
            if (at, origin) in seen:
                continue  # repeated after a fault
            seen.add((at, origin))
        key = history.key(origin) if ordering == "key" else None
        lane = at, origin[0], key
        if latest.setdefault(lane, -1) > origin[1]:
            yield Anomaly("order-broken", f"{_spell((at, offset))} is of {origin[1]}, and {latest[lane]} was before it")
        latest[lane] = max(latest[lane], origin[1])


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
    """A record may begin when every earlier one of its lane was settled, by any worker; in batches: had run."""
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
            # Of a batch, what cannot be decoded never begins, and what is given up is dead-lettered after the rest of it ran.
            settled = history.ends.get(place) if ordering == "batch" else history.finished(place) or float("inf")
            if settled is not None and settled > latest:
                latest, latest_offset = settled, offset


def _earliest(*times: float | None) -> float | None:
    return min([time for time in times if time is not None], default=None)


def _spell(place: Place) -> str:
    return f"{place[0]}@{place[1]}"
