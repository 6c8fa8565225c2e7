"""The dependencies of all parts that store, handed down from `Storage`."""

from dataclasses import dataclass, field

from octopus.broker.checksum import Checksum, crc32c
from octopus.broker.codecs import Codecs
from octopus.broker.durability import GroupCommit
from octopus.broker.faults import Faults
from octopus.broker.files import Descriptors


@dataclass(frozen=True)
class Environment:
    """The surroundings of logs and journals.

    Attributes:
        checksum: CRC-32C.
        codecs: Pack and unpack records; gzip is built in.
        faults: Disk faults on demand.
        descriptors: Open files.
        commit: Makes things durable.
        is_durable: Whether an acknowledgement means fsync'd; otherwise, written.
    """

    checksum: Checksum = crc32c
    codecs: Codecs = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    descriptors: Descriptors = field(default_factory=Descriptors)
    commit: GroupCommit = field(default_factory=GroupCommit)
    is_durable: bool = True
