"""The virtual clock by itself."""

import asyncio
import time

import pytest

from octopus.testing import VirtualTimeLoop


def run(work):  # type: ignore[no-untyped-def]
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


def test_a_week_passes_at_once() -> None:
    async def week() -> float:
        await asyncio.sleep(7 * 86400)
        return asyncio.get_running_loop().time()

    began = time.perf_counter()
    assert run(week()) == pytest.approx(7 * 86400)
    assert time.perf_counter() - began < 1


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def race() -> list[float]:
        finished: list[float] = []

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds)
            finished.append(seconds)

        await asyncio.gather(*(sleep(seconds) for seconds in (30, 0.1, 3600, 2, 1e-5)))
        return finished

    assert run(race()) == [1e-5, 0.1, 2, 30, 3600]


def test_a_thread_is_waited_for() -> None:
    async def main() -> float:
        async with asyncio.timeout(3600):
            await asyncio.to_thread(time.sleep, 0.05)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    elapsed = run(main())
    assert elapsed <= time.monotonic() - began, "its clock is never ahead of the wall's"


def test_a_time_limit_on_a_thread_is_real() -> None:
    async def main() -> None:
        async with asyncio.timeout(0.02):
            await asyncio.to_thread(time.sleep, 0.2)

    with pytest.raises(TimeoutError):
        run(main())


@pytest.mark.filterwarnings("error")
def test_threads_that_still_work_when_the_loop_ends_are_joined_however_long_they_take() -> None:
    ended: list[None] = []

    def work() -> None:
        time.sleep(0.2)
        ended.append(None)

    async def main() -> None:
        for _ in range(3):
            asyncio.get_running_loop().run_in_executor(None, work)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
        clock = runner.get_loop().virtual_time  # type: ignore[attr-defined]
    assert len(ended) == 3
    assert clock.time() < 60, "it is the time that it took"


def test_sockets_get_their_turn_before_the_clock_jumps() -> None:
    async def main() -> bytes:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            line = await reader.readline()
            writer.close()
            return line

    assert run(main()) == b"hello\n"


def test_what_threads_call_back_is_heard() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        await asyncio.gather(heard.wait(), asyncio.to_thread(loop.call_soon_threadsafe, heard.set))

    run(main())
