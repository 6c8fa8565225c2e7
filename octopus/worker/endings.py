"""The end of a group's run: what runs may finish, and what is finished is committed, or it is said that it is not."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

from octopus.errors import OctopusError, TransportError
from octopus.logs import get_logger
from octopus.runner import Assignment, Runner
from octopus.worker.rescue import NoRescue, Rescue

logger = get_logger("octopus.worker")

COMMIT_AGAIN = 0.2
"""Seconds between two tries of the last commit."""


async def finish_running(
    group: str,
    runner: Runner,
    assignments: Collection[Assignment],
    rescue: Rescue | NoRescue,
    committer: asyncio.Task[None],
    timeout: float,
) -> None:
    """Let handlers come to their end. What is finished is committed meanwhile, so a stop that does not wait finds it done.

    Args:
        group: Whose, for the log.
        runner: What runs them.
        assignments: What is drained.
        rescue: Writes anew what waits and whose topic is gone; handlers have what it leaves of the time.
        committer: Commits regularly, and is ended afterwards.
        timeout: Seconds they have.

    Raises:
        Exception: What committing broke with, if that is neither the broker's doing nor a stop of processing: those are known.
    """
    until = asyncio.get_running_loop().time() + timeout
    try:
        await rescue.before_drain(assignments, timeout)
        if not await runner.drain(assignments, max(0.0, until - asyncio.get_running_loop().time())):
            logger.warning(
                "%s: %s within %.0f s; their records will be delivered again",
                group,
                f"{running} handlers did not finish"
                if (running := len(runner.running))
                else "outputs of handlers were not acknowledged",
                timeout,
            )
    finally:
        committer.cancel()
        (error,) = await asyncio.gather(committer, return_exceptions=True)
    if isinstance(error, Exception) and not isinstance(error, OctopusError):
        raise error


async def commit_at_last(
    group: str,
    commit: Callable[[], Awaitable[TransportError | None]],
    assignments: Collection[Assignment],
    timeout: float,
) -> TransportError | None:
    """Commit before leaving. What fails now has no next time, so it is tried for as long as a commit may take.

    Args:
        group: Whose, for the log.
        commit: Tries once; returns what it failed with, or None.
        assignments: What is committed.
        timeout: Seconds for all tries.

    Returns:
        Why something that is finished is not committed, or None.
    """
    error: TransportError | None = TransportError("the broker did not answer in time", retryable=True)
    try:
        async with asyncio.timeout(timeout):
            while (error := await commit()) is not None and error.retryable:  # noqa: ASYNC110 - brokers do not notify
                await asyncio.sleep(COMMIT_AGAIN)
    except TimeoutError:
        pass
    if error is None or not any(assignment.counts and assignment.has_progress for assignment in assignments):
        return None
    logger.error("%s: the last commit failed, so events that are finished will be delivered again: %s", group, error)
    return error
