"""Faults on order, for tests: the next requests of an API fail, answer late, lose their connection, or are throttled."""

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Literal

from octopus.broker.throttling import Quotas

Moment = Literal["before", "after"]


@dataclass(frozen=True)
class Fault:
    """A fault of one request, in place of or in addition to its answer.

    Attributes:
        code: Error code every part of the answer carries; nothing is done. 0 for none.
        delay: Seconds to wait before the request is looked at.
        drop: Close the connection before the request is carried out, or after it without an answer (a lost ack).
        throttle: Seconds that the answer tells the client to wait, during which its connection is not read.
    """

    code: int = 0
    delay: float = 0.0
    drop: Moment | None = None
    throttle: float = 0.0


NO_FAULT = Fault()


class RequestFaults:
    """Queues of faults by API key; each is used once, in the order given. The same effects as a mock cluster's hooks.

    Attributes:
        quotas: Clients' shares per second; beyond them they are throttled.
    """

    def __init__(self, quotas: Quotas | None = None) -> None:
        self.quotas = quotas or Quotas()
        self._queues: defaultdict[int, deque[Fault]] = defaultdict(deque)

    def fail(self, api_key: int, *codes: int, delay: float = 0.0) -> None:
        """Answer the next requests of this API with these error codes, one each, `delay` seconds late; 0 lets one pass."""
        self._queues[api_key].extend(Fault(code=int(code), delay=delay) for code in codes)

    def delay(self, api_key: int, seconds: float, times: int = 1) -> None:
        """Look at the next `times` requests of this API only after `seconds`."""
        self._queues[api_key].extend([Fault(delay=seconds)] * times)

    def drop(self, api_key: int, times: int = 1, moment: Moment = "before") -> None:
        """Close the connection on the next `times` requests of this API, before or after they are carried out."""
        self._queues[api_key].extend([Fault(drop=moment)] * times)

    def throttle(self, api_key: int, seconds: float, times: int = 1) -> None:
        """Throttle the next `times` requests of this API; a Fetch comes back empty."""
        self._queues[api_key].extend([Fault(throttle=seconds)] * times)

    def clear(self) -> None:
        """Forget every fault not used yet, and all quotas."""
        self._queues.clear()
        self.quotas.rates.clear()

    def take(self, api_key: int) -> Fault:
        """Use up the next fault of an API."""
        queue = self._queues.get(api_key)
        return queue.popleft() if queue else NO_FAULT
