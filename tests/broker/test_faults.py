"""Disk faults on order do exactly what was ordered."""

import errno
import os
import signal

import pytest

from octopus.broker.faults import Faults


def test_nothing_ordered_changes_nothing() -> None:
    faults = Faults()
    assert faults.before_write(1000) == 1000
    faults.before_sync()


def test_a_full_disk_takes_what_still_fits_and_then_nothing() -> None:
    faults = Faults()
    faults.space = 30
    assert [faults.before_write(20), faults.before_write(20)] == [20, 10]
    with pytest.raises(OSError) as caught:
        faults.before_write(1)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("deed", ["write", "sync"])
def test_an_error_on_order_carries_its_number(deed: str) -> None:
    faults = Faults()
    faults.write_error = faults.sync_error = errno.EIO
    with pytest.raises(OSError) as caught:
        faults.before_write(1) if deed == "write" else faults.before_sync()
    assert caught.value.errno == errno.EIO


def test_a_torn_write_writes_its_part_and_kills_the_process_at_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        """What happens in this test in place of the end of the process."""

    def kill(process: int, number: int) -> None:
        raise Killed(process, number)

    monkeypatch.setattr(os, "kill", kill)
    faults = Faults()
    faults.kill_after = 30
    assert [faults.before_write(20), faults.before_write(20)] == [20, 10]
    with pytest.raises(Killed) as caught:
        faults.before_write(10)
    assert caught.value.args == (os.getpid(), signal.SIGKILL)
