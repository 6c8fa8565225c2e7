"""Test your app without a broker: publish in, look at what came out, in virtual time.

    def test_transfers_large_files():
        with TestClient(app) as client:
            outcomes = client.publish("files", {"event": "created", "path": "/data/a", "size": 2_000_000})
        assert outcomes == {"start_transfer": DONE}
        assert [message.value for message in client.published("transfers")] == [{"source": "/data/a"}]

`async with TestClient(app) as client: await client.publish(…)` does the same inside the event loop of an async test.
"""

from octopus.outcomes import DONE, SKIPPED, DeadLetter, Done, Outcome, Retry, Skipped
from octopus.testing.builders import event, record, records
from octopus.testing.client import SynchronousTestClient, TestClient
from octopus.testing.journal import DeadLettered, Failure
from octopus.testing.virtual_time import VirtualTime, VirtualTimeLoop

__all__ = [
    "DONE",
    "SKIPPED",
    "DeadLetter",
    "DeadLettered",
    "Done",
    "Failure",
    "Outcome",
    "Retry",
    "Skipped",
    "SynchronousTestClient",
    "TestClient",
    "VirtualTime",
    "VirtualTimeLoop",
    "event",
    "record",
    "records",
]
