"""Whatever is done to a log, in whatever order, it holds what a list of records would hold."""

import errno
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from octopus.broker.codes import BrokerError, Code
from octopus.broker.faults import Faults
from octopus.broker.log import Log, LogConfig
from tests.broker.storage_builders import NOW, TEMPORARY, all_records, batch, committed_records, disk_log

PRODUCERS = st.integers(1, 3)


@dataclass
class Stored:
    """A record of the model; `owner` is the open or aborted transaction's producer."""

    offset: int
    value: bytes
    owner: int | None = None
    is_aborted: bool = False


class LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Stored] = []
        self.start = self.end = 0
        self.sequences: dict[int, int] = {}
        self.last: dict[int, tuple[bytes, int]] = {}
        self.open: dict[int, int] = {}
        self.directory: Path | None = None

    @initialize(on_disk=st.booleans(), segment_bytes=st.sampled_from([1, 300, 1000, 10**6]))
    def begin(self, on_disk: bool, segment_bytes: int) -> None:
        self.config = {"segment_bytes": segment_bytes, "retention_ms": -1}
        self.faults = Faults()
        if on_disk:
            self.directory = Path(tempfile.mkdtemp(dir=TEMPORARY))
            self.log = disk_log(self.directory, self.faults, **self.config)
        else:
            self.log = Log(config=LogConfig(**self.config))

    @rule(values=st.lists(st.binary(max_size=200), min_size=1, max_size=5))
    def append(self, values: list[bytes]) -> None:
        self.put(batch(*values), values)

    @rule(producer=PRODUCERS, value=st.binary(max_size=50), in_transaction=st.booleans())
    def append_in_sequence(self, producer: int, value: bytes, in_transaction: bool) -> None:
        if producer in self.open:
            in_transaction = True
        sequence = self.sequences.get(producer, 0)
        data = batch(value, producer=producer, sequence=sequence, transactional=in_transaction)
        if in_transaction:
            self.open.setdefault(producer, self.end)
        self.sequences[producer] = sequence + 1
        self.last[producer] = data, self.end
        self.put(data, [value], producer if in_transaction else None)

    @rule(producer=PRODUCERS)
    def repeat(self, producer: int) -> None:
        if producer in self.last:
            data, offset = self.last[producer]
            appended = self.log.append(data, NOW)
            assert (appended.base_offset, appended.duplicate) == (offset, True)

    @rule(producer=PRODUCERS, gap=st.integers(1, 5))
    def skip(self, producer: int, gap: int) -> None:
        if producer in self.sequences:
            with pytest.raises(BrokerError) as refused:
                self.log.append(batch(producer=producer, sequence=self.sequences[producer] + gap), NOW)
            assert refused.value.code == Code.OUT_OF_ORDER_SEQUENCE_NUMBER

    @rule(producer=PRODUCERS, commit=st.booleans())
    def end_transaction(self, producer: int, commit: bool) -> None:
        if producer in self.open:
            assert self.log.append_control(producer, 0, commit, NOW) == self.end
            self.log.flush()
            self.end += 1
            del self.open[producer]
            for record in self.records:
                if record.owner == producer:
                    record.owner, record.is_aborted = None, not commit

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(self.start, self.end))
        assert self.log.delete_before(offset) == offset
        self.start = offset

    @rule()
    def drop_what_may_be_dropped(self) -> None:
        self.log.config = LogConfig(**self.config, retention_bytes=0)
        try:
            self.log.retain(NOW)
        finally:
            self.log.config = LogConfig(**self.config)
        # Which segments there are is the log's affair; that none undecided goes is not.
        assert self.start <= self.log.start_offset <= self.log.stable_offset
        self.start = self.log.start_offset

    @rule(values=st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=3), space=st.integers(0, 200))
    def append_on_a_full_disk(self, values: list[bytes], space: int) -> None:
        data = batch(*values)
        if self.directory is None or space >= len(data):
            return
        self.faults.space = space
        with pytest.raises(BrokerError) as refused:
            self.log.append(data, NOW)
        assert refused.value.code == Code.KAFKA_STORAGE_ERROR
        self.faults.space = None

    @rule(value=st.binary(max_size=50))
    def append_with_a_failing_sync(self, value: bytes) -> None:
        if self.directory is None:
            return
        self.log.append(batch(value), NOW)
        self.faults.sync_error = errno.EIO
        with pytest.raises(BrokerError) as refused:
            self.log.flush()
        assert refused.value.code == Code.KAFKA_STORAGE_ERROR
        self.faults.sync_error = 0

    @precondition(lambda self: self.directory is not None)
    @rule(clean=st.booleans(), torn=st.binary(max_size=100))
    def reopen(self, clean: bool, torn: bytes) -> None:
        assert self.directory is not None
        if clean:
            self.log.close()
        else:
            for path in sorted(self.directory.glob("*.log"))[-1:]:
                with path.open("ab") as file:
                    file.write(torn)
        self.log = disk_log(self.directory, self.faults, clean=clean, **self.config)

    @invariant()
    def everything_is_there_in_order(self) -> None:
        if not hasattr(self, "log"):
            return
        assert (self.log.start_offset, self.log.end_offset) == (self.start, self.end)
        expected = [(record.offset, record.value) for record in self.records if record.offset >= self.start]
        assert [(record.offset, record.value) for record in all_records(self.log)] == expected

    @invariant()
    def committed_readers_see_what_was_decided(self) -> None:
        if not hasattr(self, "log"):
            return
        stable = max(self.start, min(self.open.values(), default=self.end))
        assert self.log.stable_offset == stable
        assert [record.offset for record in committed_records(self.log)] == [
            record.offset for record in self.records if self.start <= record.offset < stable and not record.is_aborted
        ]

    def put(self, data: bytes, values: list[bytes], owner: int | None = None) -> None:
        assert self.log.append(data, NOW).base_offset == self.end
        self.log.flush()
        for value in values:
            self.records.append(Stored(self.end, value, owner))
            self.end += 1

    def teardown(self) -> None:
        if self.directory is not None:
            self.log.close()
            shutil.rmtree(self.directory)


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
