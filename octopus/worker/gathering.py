"""One status from those of several workers. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from octopus.worker.status import GroupStatus, WorkerStatus, total_lag


def gathered(now: Sequence[WorkerStatus], gone: Sequence[WorkerStatus], nothing: WorkerStatus) -> WorkerStatus:
    """Return what workers do together.

    Args:
        now: Those that run, the newest snapshot first: of two that both have a partition, as they may for a moment, it is right.
        gone: How those that have ended were last seen. What they did counts, what they had does not.
        nothing: What is said of no worker at all, with the time since the first one began.
    """
    names = sorted({group.group for status in (*now, *gone) for group in status.groups})
    out = next((status for status in now if status.outage is not None), None)
    return msgspec.structs.replace(
        nothing,
        broker=now[0].broker if now else nothing.broker,
        groups=tuple(_group(_of(name, now), _of(name, gone)) for name in names),
        slowest=max((each.slowest for each in now if each.slowest), key=lambda slowest: slowest[1], default=None),
        outage=out.outage if out else None,
        away=out.away if out else 0.0,
    )


def _of(name: str, statuses: Sequence[WorkerStatus]) -> list[GroupStatus]:
    return [group for status in statuses for group in status.groups if group.group == name]


def _group(now: Sequence[GroupStatus], gone: Sequence[GroupStatus]) -> GroupStatus:
    both = [*now, *gone]
    lags: dict[str, int | None] = {}
    for group in now:
        lags = {**group.lags, **lags}
    joined = [group.since_join for group in now if group.since_join is not None]
    return GroupStatus(
        group=both[0].group,
        handlers=both[0].handlers,
        partitions=tuple(sorted({partition for group in now for partition in group.partitions})),
        stopped=_first(now, lambda group: group.stopped),
        failure=_first(now, lambda group: group.failure),
        waits_for=_first(now, lambda group: group.waits_for),
        since_join=max(joined, default=None),
        unreadable=_united(group.unreadable for group in now),
        silent=_united(group.silent for group in now),
        settled=sum(group.settled for group in both),
        skipped=sum(group.skipped for group in both),
        retried=sum(group.retried for group in both),
        dead=sum(group.dead for group in both),
        deferred=sum(group.deferred for group in both),
        in_flight=sum(group.in_flight for group in now),
        running=sum(group.running for group in now),
        delayed=sum(group.delayed for group in now),
        stranded=sum(group.stranded for group in now),
        lag=total_lag(lags),
        lags=lags,
        since_fetch=max((group.since_fetch for group in now), default=0.0),
        since_commit=max((group.since_commit for group in now), default=0.0),
        commit_error=_first(now, lambda group: group.commit_error),
    )


def _first(groups: Sequence[GroupStatus], of: Callable[[GroupStatus], str | None]) -> str | None:
    return next((text for group in groups if (text := of(group))), None)


def _united(found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {partition: reason for each in found for partition, reason in each.items()}
