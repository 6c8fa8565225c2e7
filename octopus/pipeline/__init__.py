"""What happens to one record, or one batch, inside a group's handlers.

    RunClaim ── fan_out ──▶ road ── boundary ─▶ deadlines ─▶ middleware ─▶ handling ──▶ outcome

What the parts promise each other, and every driver above:

- A road is *total*: a record comes to exactly one outcome. Only a cancellation from outside, `HandlerStopped` and
  `MemoryError` leave it, and then the record is not settled (`boundary`).
- An outcome is final when it is returned. The copy in the dead-letter topic is acknowledged before `DeadLetter`, the copy in the
  retry topic before `Deferred`. What the handler returned is acknowledged before `Done`, or on its way (`in_flight`): then the record
  settles when it is, and one that is refused after all has another outcome. Under `delivery="exactly_once"` it is in the outbox
  instead, and nothing suspends between that and the return (`outputs`).
- `Skipped` means that the filter, or middleware, said so. It is the only outcome without a trace.
- A handler sees an attempt number from 1, which counts its own attempts, also where several share a group (`fan_out`).
- Nothing of one record is left for the next: trace headers, a request to cancel, a deadline.
- The fused and the wrapped form of a road come to the same outcomes; `Pipeline.bind` alone chooses, for every driver.
- What is bound belongs to one assignment of one partition. What it remembers (unfinished handlers, outputs that wait) ends
  with that assignment, whose records then come again.
"""

from octopus.pipeline.pipeline import Pipeline
from octopus.pipeline.subscription import subscription

__all__ = ["Pipeline", "subscription"]
