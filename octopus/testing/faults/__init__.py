"""Faults on order: a bad network, processes that die or freeze, brokers that refuse, handlers at their worst.

For tests of your own app and of Octopus. Nothing here starts by itself and nothing outlives its `with` block.
"""

from octopus.broker.faults import Faults as DiskFaults
from octopus.broker.request_faults import Fault, RequestFaults
from octopus.testing.faults.embedded_broker import EmbeddedBroker
from octopus.testing.faults.handlers import Mischief, block, die, first_time, hang, hang_on
from octopus.testing.faults.network import Direction, TcpProxy, free_port
from octopus.testing.faults.processes import ChildProcess, end_with_parent, python_module

__all__ = [
    "ChildProcess",
    "Direction",
    "DiskFaults",
    "EmbeddedBroker",
    "Fault",
    "Mischief",
    "RequestFaults",
    "TcpProxy",
    "block",
    "die",
    "end_with_parent",
    "first_time",
    "free_port",
    "hang",
    "hang_on",
    "python_module",
]
