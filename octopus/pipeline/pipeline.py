"""Puts a group's handlers together, once per assignment of a partition, and chooses the form of their road."""

from collections.abc import Mapping, Sequence

from octopus.errors import ConfigurationError
from octopus.events import TopicPartition
from octopus.pipeline.attempts import AssignedOutputs
from octopus.pipeline.claims import in_turn, one_by_one
from octopus.pipeline.dead_letters import DeadLetters
from octopus.pipeline.deadlines import Deadlines
from octopus.pipeline.fan_out import fan_out
from octopus.pipeline.handling import Handling
from octopus.pipeline.in_flight import OutputsInFlight
from octopus.pipeline.outputs import Outbox
from octopus.pipeline.road import Road
from octopus.pipeline.subscription import subscription
from octopus.publishing import Publisher
from octopus.routing import Route, is_among
from octopus.serde import Codec
from octopus.transports.base import Producer
from octopus.types import Defer, Middleware, Observe, Run, RunClaim


class Pipeline:
    """The application of one consumer group.

    Args:
        group: The group's name.
        routes: Its handlers; more than one must agree on ordering, start and delivery.
        middleware: The app's own, outermost first.
        codecs: The app's codecs.
        publisher: For what handlers return.
        producer: For dead letters.
        defer: Takes long retries to their topic, of those handlers that have one, by name.
        dead_letter_limit: Dead letters of a handler within `dead_letter_window` seconds that stop it; 0 for no limit.
        dead_letter_window: Seconds.

    Attributes:
        stops_with: The group that stops when this one does, and the other way round; its own, but for those that run
            retries.
        handlers: Names for people.
        roads: Its handlers, compiled.

    Raises:
        ConfigurationError: The routes cannot share a group.
    """

    def __init__(
        self,
        group: str,
        routes: Sequence[Route],
        *,
        middleware: Sequence[Middleware] = (),
        codecs: Sequence[Codec] = (),
        publisher: Publisher,
        producer: Producer,
        defer: Mapping[str, Defer] | None = None,
        dead_letter_limit: int = 0,
        dead_letter_window: float = 60.0,
    ) -> None:
        _agree(group, routes)
        self.group = self.stops_with = group
        self.routes = tuple(routes)
        self.handlers = tuple(route.name for route in routes)
        first = routes[0]
        self.ordering = first.ordering
        self.batch = first.batch
        self.within = first.within
        self.start = first.start
        self.delivery = first.delivery
        self.concurrency = max(route.concurrency for route in routes)
        self.topics = subscription(routes)
        self._producer = producer
        self.roads: list[Road] = []
        for route in routes:
            deadlines = Deadlines(route.timeout) if route.timeout is not None else None
            handling = Handling(
                route,
                codecs=codecs,
                encode=publisher.outgoing,
                send=publisher.send,
                check=deadlines.check if deadlines is not None else None,
            )
            dead_letters = DeadLetters(
                producer, route.name, topic=route.dead_letter, limit=dead_letter_limit, window=dead_letter_window
            )
            defers = (defer or {}).get(route.name)
            self.roads.append(Road(route, handling, dead_letters, tuple(middleware), deadlines, defers))

    # ── the road ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def outputs_in_flight(self, limit: int) -> OutputsInFlight:
        """Return what takes the outputs of the group's handlers, for a driver that settles at their acknowledgement.

        Args:
            limit: Bytes on their way beyond which handlers wait.
        """
        return OutputsInFlight(self._producer, "/".join(self.handlers), limit)

    def bind(
        self,
        partition: TopicPartition,
        outbox: Outbox | None = None,
        observe: Observe | None = None,
        outputs: AssignedOutputs | None = None,
    ) -> RunClaim:
        """Return the compiled road for the records of one partition, for one assignment of it.

        This is the only place that chooses between the fused and the wrapped form, and every driver asks here.

        Args:
            partition: Which one.
            outbox: Gets what is published, for `delivery="exactly_once"`, from a driver that has transactions.
            observe: Stands around each handler where several read the partition, for a driver that shows what became of
                a record in each.
            outputs: Takes what handlers return, from a driver that settles a record when it is acknowledged; else handlers wait
                for that.

        Raises:
            ConfigurationError: The driver has no transactions and the group wants them.
        """
        self.check_driver(outbox)
        roads = self.roads_of(partition.topic)
        can_fuse = all(road.can_fuse for road in roads)
        outlets = [road.outlet(partition, outputs) for road in roads]
        if len(roads) == 1:
            (road,), (outlet,) = roads, outlets
            if can_fuse:
                return road.fused(partition, outlet)
            return settled(road.wrapped(partition, outbox, outlet), outbox)
        wrapped = [
            _seen(observe, road, road.wrapped(partition, outbox, outlet))
            for road, outlet in zip(roads, outlets, strict=True)
        ]
        if not can_fuse or any(road.middleware for road in roads):  # middleware may change what a filter sees
            run_claim = fan_out(wrapped, outlets=outlets)
            return run_claim if outbox is None else settled(one_by_one(run_claim), outbox)
        chosen = [
            _seen(observe, road, road.chosen(partition, outlet)) for road, outlet in zip(roads, outlets, strict=True)
        ]
        choose = roads[0].handling.chooser([road.route.pattern for road in roads])
        return fan_out(chosen, choose, unsure=wrapped, outlets=outlets)

    def roads_of(self, topic: str) -> list[Road]:
        """Return the handlers that get the records of a topic."""
        return [road for road in self.roads if road.route.reads(topic)]

    def check_driver(self, outbox: Outbox | None) -> None:
        """See that the driver and the handlers agree about transactions. Raises as `bind`."""
        if (outbox is not None) != (self.delivery == "exactly_once"):
            raise ConfigurationError(
                f"group {self.group!r} wants delivery={self.delivery!r}, which cannot be had here: a transaction spans what "
                "is published and the offsets, so it needs a worker."
            )

    # ── what drivers ask ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def topics_by_name(self) -> tuple[str, ...]:
        """The topics that the group reads by their names; none when it reads by a pattern."""
        return self.topics if isinstance(self.topics, tuple) else ()

    def reads(self, topic: str) -> bool:
        """Tell whether the group reads a topic."""
        return is_among(topic, self.topics)


def settled(run: Run, outbox: Outbox | None) -> RunClaim:
    """Run the records of a claim one by one, and let an outbox know when each settles."""
    return in_turn(run if outbox is None else outbox.settling(run))


def _seen(observe: Observe | None, road: Road, run: Run) -> Run:
    return run if observe is None else observe(road.route.name, run)


def _agree(group: str, routes: Sequence[Route]) -> None:
    first = routes[0]
    for other in routes[1:]:
        for field in ("ordering", "start", "batch", "delivery"):
            if getattr(first, field) != getattr(other, field):
                raise ConfigurationError(
                    f"handlers {first.name!r} and {other.name!r} share group {group!r} but differ in {field}: "
                    f"{getattr(first, field)!r} and {getattr(other, field)!r}. Make them equal or give them groups of their own."
                )
        if other.batch is not None:
            raise ConfigurationError(
                f"batch handlers {first.name!r} and {other.name!r} cannot share group {group!r}; give them groups of their own."
            )
