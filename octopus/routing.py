"""Topic + filter + handler: routes, and routers that collect them."""

import dataclasses
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from octopus.arguments import is_count, seconds
from octopus.config import GROUP_NAME, TOPIC_NAME, TOPIC_NAME_RULE
from octopus.errors import ConfigurationError
from octopus.patterns import Pattern
from octopus.retries import RetryPolicy
from octopus.signatures import Signature, inspect_handler, returned_outcome, returned_value, spell_generic
from octopus.types import Handler

H = TypeVar("H", bound=Callable[..., Any])

Topics = str | Sequence[str] | re.Pattern[str]
Delivery = Literal["at_least_once", "exactly_once"]
Ordering = Literal["partition", "key", "none"]
StartAt = Literal["earliest", "latest"] | datetime | timedelta


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """One handler with everything that was said about it. See `Router.on` for the meaning of the fields."""

    name: str
    topics: tuple[str, ...] | re.Pattern[str]
    handler: Handler
    signature: Signature
    pattern: Pattern | None = None
    to: str | None = None
    group: str | None = None
    batch: int | None = None
    within: float = 1.0
    ordering: Ordering = "partition"
    concurrency: int = 100
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    retry_topic: str | bool = False
    dead_letter: str | bool | None = None
    timeout: float | None = None
    start: StartAt = "earliest"
    delivery: Delivery = "at_least_once"

    def reads(self, topic: str) -> bool:
        """Tell whether this route reads a topic."""
        return is_among(topic, self.topics)


def is_among(topic: str, topics: tuple[str, ...] | re.Pattern[str]) -> bool:
    """Tell whether a topic has one of several names, or a name that a pattern matches from end to end."""
    return topic in topics if isinstance(topics, tuple) else topics.fullmatch(topic) is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Timer:
    """A function called again and again.

    Attributes:
        name: For logs.
        seconds: From the start of one call to the start of the next; a call that takes longer is not overlapped.
        function: Takes no argument.
    """

    name: str
    seconds: float
    function: Callable[[], Awaitable[Any] | Any]


class Router:
    """Collects handlers and timers, to be included in an app or in another router."""

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self.timers: list[Timer] = []
        self._app_name: str | None = None

    def on(
        self,
        topic: Topics,
        *,
        filter: Mapping[str, Any] | str | Pattern | None = None,  # noqa: A002 - the word for it
        to: str | None = None,
        group: str | None = None,
        batch: int | None = None,
        within: float | timedelta = 1.0,
        ordering: Ordering = "partition",
        concurrency: int = 100,
        retry: RetryPolicy | int | None = None,
        retry_topic: str | bool = False,
        dead_letter: str | bool | None = None,
        timeout: float | timedelta | None = None,
        start: StartAt = "earliest",
        delivery: Delivery = "at_least_once",
        name: str | None = None,
    ) -> Callable[[H], H]:
        """Register a handler; the decorated function itself is returned unchanged.

        Args:
            topic: A topic, several, or a compiled regular expression that whole topic names must match.
            filter: An EventBridge event pattern; events that do not match are skipped without calling the handler.
            to: Topic for the handler's return value: None publishes nothing, a list each of its items, a `Message` its
                value to its own topic. A plain value keeps the key of its event.
            group: Consumer group; `<app>.<name>` when None. Handlers that name the same group share its consumer.
            batch: Hand over up to this many events at once, as a list; fewer where they come to half a mebibyte.
            within: Longest wait for a batch to fill, seconds.
            ordering: `partition`: one event of a partition after the other. `key`: one event of a key after the other.
                `none`: no order.
            concurrency: Events handled at once in this process, at most.
            retry: The policy for exceptions; an int is a number of attempts.
            retry_topic: Let retries that wait longer than `RetryPolicy.defer_beyond` do so in a topic instead of in their
                lane: they survive a restart and hold up nothing, and come back out of order. True for
                `<app>.<name>.retry`, or a topic's name.
            dead_letter: Topic for events that are given up; `<topic>.dead-letter` when None; False for none: then an
                event that would be given up stops the handler.
            timeout: Seconds after which a run of the handler is cancelled and counts as failed.
            start: Where the group starts when it has committed nothing: the end or the beginning of the log, a time
                (aware datetime), or that long ago (timedelta).
            delivery: `exactly_once`: an event's outputs through `to=`, `app.publish` and dead letters become visible
                exactly once, together with the commit of its offset, in one Kafka transaction. Effects elsewhere stay
                at least once, as everything is by default.
            name: The handler's name in groups, logs and dead letters; the function's when None.

        Raises:
            ConfigurationError: The handler or an argument cannot work; the sentence names the fault.
            PatternError: The filter does not compile.
        """
        if callable(topic):
            raise ConfigurationError(
                f'@on stands above {_name_of(topic)} without a topic: write @app.on("…") with the topic that it reads.'
            )
        topics = _topics(topic)
        pattern = filter if filter is None or isinstance(filter, Pattern) else Pattern.compile(filter)

        def decorate(handler: H) -> H:
            _check_counts(_name_of(handler), concurrency, batch)
            signature = inspect_handler(handler, batch=batch is not None)
            route = Route(
                name=name or signature.name,
                topics=topics,
                handler=handler,
                signature=signature,
                pattern=pattern,
                to=to,
                group=group,
                batch=batch,
                within=seconds(within, "within={}"),
                ordering=ordering,
                concurrency=concurrency,
                retry=_retry(retry),
                retry_topic=retry_topic,
                dead_letter=dead_letter,
                timeout=None if timeout is None else seconds(timeout, "timeout={}"),
                start=start,
                delivery=delivery,
            )
            self._add(route)
            return handler

        return decorate

    def every(self, interval: float | timedelta, *, name: str | None = None) -> Callable[[H], H]:
        """Register a function to be called every `interval` seconds while the app runs, once in each process.

        A call that raises is logged and the next one comes at its time; a call that takes longer than the interval
        delays the next one, they never overlap.

        Raises:
            ConfigurationError: The interval is not positive, or the function cannot be called with nothing.
        """
        if callable(interval):
            raise ConfigurationError(
                f"@every stands above {_name_of(interval)} without an interval: write @app.every(5) for every five seconds."
            )
        period = seconds(interval, "every({})")
        if period <= 0:
            raise ConfigurationError(f"every({interval!r}): the interval must be longer than nothing.")

        def decorate(function: H) -> H:
            own_name = name or _name_of(function)
            _check_timer(function, own_name)
            self.timers.append(Timer(own_name, period, function))
            return function

        return decorate

    def include(self, router: "Router", *, prefix: str = "") -> None:
        """Add another router's handlers and timers.

        Args:
            router: To add, as it is now.
            prefix: Put before its topics, `to=` and named dead-letter and retry topics, and before handler names, so that
                one router can be included several times.

        Raises:
            ConfigurationError: It is no router, or one of its handlers cannot be here; the sentence names the fault.
        """
        if not isinstance(router, Router):
            raise ConfigurationError(
                f"include({router!r}): give a Router, or an app, whose handlers and timers are added."
            )
        if not isinstance(prefix, str):
            raise ConfigurationError(
                f"include(…, prefix={prefix!r}): give text, which begins topics and names of handlers."
            )
        for route in [*router.routes]:
            self._add(_prefixed(route, prefix) if prefix else route)
        self.timers.extend([dataclasses.replace(timer, name=prefix + timer.name) for timer in router.timers])

    def _add(self, route: Route) -> None:
        _check(route)
        _check_names(route, self._app_name)
        if self._app_name is not None:
            _check_retry_groups([*self.routes, route], self._app_name)
        if any(known.name == route.name for known in self.routes):
            raise ConfigurationError(
                f"there is a handler named {route.name!r} already; its name is its consumer group, so give one of them "
                "another with name=."
            )
        self.routes.append(route)


def _prefixed(route: Route, prefix: str) -> Route:
    if isinstance(route.topics, tuple):
        topics: tuple[str, ...] | re.Pattern[str] = tuple(prefix + topic for topic in route.topics)
    else:
        topics = re.compile(re.escape(prefix) + inlined(route.topics))
    return dataclasses.replace(
        route,
        name=prefix + route.name,
        topics=topics,
        to=None if route.to is None else prefix + route.to,
        retry_topic=prefix + route.retry_topic if isinstance(route.retry_topic, str) else route.retry_topic,
        dead_letter=prefix + route.dead_letter if isinstance(route.dead_letter, str) else route.dead_letter,
    )


def inlined(pattern: re.Pattern[str]) -> str:
    """Return a pattern's text with its flags inside, so that it can stand in a larger one.

    Flags written at its beginning, `(?i)…`, would be refused there; they are among `pattern.flags` already.
    """
    text = GLOBAL_FLAGS.sub("", pattern.pattern)
    flags = "".join(dead_letter for dead_letter, flag in FLAGS.items() if pattern.flags & flag)
    end = "\n)" if "x" in flags else ")"  # the last line may be a comment
    return f"(?{flags}:{text}{end}" if flags else f"(?:{text})"


FLAGS = {"a": re.ASCII, "i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}
GLOBAL_FLAGS = re.compile(r"\A\s*\(\?[aimsux]+\)")

DEAD_LETTER_SUFFIX, RETRY_SUFFIX = ".dead-letter", ".retry"


def _topics(topic: Topics) -> tuple[str, ...] | re.Pattern[str]:
    if isinstance(topic, re.Pattern):
        if not isinstance(topic.pattern, str):
            raise ConfigurationError(f"{topic!r} matches bytes; topic names are text: re.compile('…').")
        return topic
    if isinstance(topic, bytes) or not isinstance(topic, str | Iterable):
        raise ConfigurationError(
            f"on({topic!r}) reads no topic: give a topic's name, several, or a compiled regular expression."
        )
    topics = (topic,) if isinstance(topic, str) else tuple(topic)
    if not topics:
        raise ConfigurationError("on([]) reads no topic; name at least one.")
    for each in topics:
        if not isinstance(each, str) or not TOPIC_NAME.fullmatch(each):
            raise ConfigurationError(
                f"{each!r} is not a topic name: {TOPIC_NAME_RULE}. "
                "For many topics give a compiled regular expression: re.compile(…)."
            )
    return tuple(dict.fromkeys(topics))


def _check_counts(name: str, concurrency: object, batch: object) -> None:
    """Refuse what is no number of events, before anything is said about a list of them."""
    for label, count in (("concurrency", concurrency), ("batch", batch)):
        if not is_count(count, 1) and (label, count) != ("batch", None):
            raise ConfigurationError(
                f"handler {name!r}: {label}={count!r} must be a whole number of events, 1 or more."
            )


def _check(route: Route) -> None:
    def refuse(sentence: str) -> None:
        raise ConfigurationError(f"handler {route.name!r}: {sentence}")

    if route.ordering not in ("partition", "key", "none"):
        refuse(f"ordering={route.ordering!r} is none of 'partition', 'key', 'none'.")
    if (outcome := returned_outcome(route.signature.returns)) is not None:
        refuse(
            f"it returns {spell_generic(outcome)}, an outcome, as middleware does; return None, or raise Reject(…) or "
            "RetryLater(…)."
        )
    if route.to is None and (value := returned_value(route.signature.returns)) is not None:
        refuse(
            f"it returns {spell_generic(value)}, and nothing says where that goes: give to=, return a Message(…, topic=…), "
            "or annotate -> None."
        )
    if route.batch is not None and route.ordering != "partition":
        refuse(f"batches are taken per partition, in order; ordering={route.ordering!r} does not go with batch=.")
    if route.within < 0:
        refuse(f"within={route.within!r} must not be negative.")
    if route.timeout is not None and route.timeout <= 0:
        refuse(f"timeout={route.timeout!r} must be longer than nothing.")
    if route.dead_letter is True:
        refuse("dead_letter=True says nothing; leave it out for '<topic>.dead-letter', or name a topic.")
    if route.batch is not None and route.retry_topic:
        refuse("a batch is retried whole, in its place; retry_topic= does not go with batch=.")
    for read in route.topics if isinstance(route.topics, tuple) else ():
        if not TOPIC_NAME.fullmatch(read):
            refuse(f"{read!r} is not a topic name: {TOPIC_NAME_RULE}.")
    if route.group is not None and not route.group:
        refuse("group='' names no group; leave it out for '<app>.<name>'.")
    if not isinstance(route.group, str | None):
        refuse(f"group={route.group!r} names no group; give text, or leave it out for '<app>.<name>'.")
    for label, topic in (("to", route.to), ("dead_letter", route.dead_letter), ("retry_topic", route.retry_topic)):
        if not isinstance(topic, str | bool | None) or (isinstance(topic, str) and not TOPIC_NAME.fullmatch(topic)):
            refuse(f"{label}={topic!r} is not a topic name: {TOPIC_NAME_RULE}.")
        if isinstance(topic, str) and label == "dead_letter" and route.reads(topic):
            refuse(f"dead_letter={topic!r} is a topic it reads: a dead letter would come straight back.")
        if isinstance(topic, str) and label == "retry_topic" and route.reads(topic):
            refuse(f"retry_topic={topic!r} is a topic it reads: a retry would come straight back.")
        if isinstance(topic, str) and label == "to" and topic == route.retry_topic:
            refuse(f"to= and retry_topic= are both {topic!r}: what it returns would be taken for a retry that waits.")
    if route.retry_topic and route.retry_topic == route.dead_letter:
        refuse(
            f"retry_topic= and dead_letter= are both {route.dead_letter!r}; give up to another topic than you wait in."
        )
    if route.delivery not in ("at_least_once", "exactly_once"):
        refuse(f"delivery={route.delivery!r} is neither 'at_least_once' nor 'exactly_once'.")
    if not isinstance(route.start, datetime | timedelta) and route.start not in ("earliest", "latest"):
        refuse(f"start={route.start!r} is neither 'earliest' nor 'latest', nor a datetime or timedelta.")
    if isinstance(route.start, datetime) and route.start.tzinfo is None:
        refuse(f"start={route.start!r} has no time zone; say which: datetime(…, tzinfo=UTC).")


def _check_names(route: Route, app: str | None) -> None:
    """Refuse a handler from which a topic or group would be named that no broker, or not every tool, takes.

    Args:
        route: The handler.
        app: The name of the app; None while the router is in none.
    """
    whose = f"handler {route.name!r}"
    for topic in route.topics if isinstance(route.topics, tuple) and route.dead_letter is None else ():
        derived = topic + DEAD_LETTER_SUFFIX
        if not TOPIC_NAME.fullmatch(derived):
            raise ConfigurationError(
                f"{whose}: dead letters of {topic!r} would go to a topic of {len(derived)} characters, and 249 are possible; "
                "name a shorter one with dead_letter=, or give False for none."
            )
        if route.reads(derived):
            raise ConfigurationError(
                f"{whose}: it reads {topic!r} and {derived!r}, where its own dead letters go: they would come straight back. "
                "Name another topic with dead_letter=, or let another handler read them."
            )
        if route.retry_topic == derived:
            raise ConfigurationError(
                f"{whose}: retry_topic={derived!r} is where dead letters of {topic!r} go; give up to another topic than you "
                "wait in."
            )
    if route.group is None or route.retry_topic:
        _check_group(route.name, whose)
    if app is None:
        return
    if route.group is None:
        _check_length(f"{app}.{route.name}", whose)
    if not route.retry_topic:
        return
    retry_group = f"{app}.{route.name}{RETRY_SUFFIX}"
    _check_length(retry_group, whose)
    if route.retry_topic is not True:
        return
    for label, given in (("to", route.to), ("dead_letter", route.dead_letter)):
        if given == retry_group:
            raise ConfigurationError(
                f"{whose}: {label}={given!r} is the topic in which its retries wait; name another."
            )
    if isinstance(route.topics, tuple) and retry_group in route.topics:  # a pattern leaves them out by itself
        raise ConfigurationError(
            f"{whose}: it reads {retry_group!r}, in which its own retries wait: they would come straight back."
        )


def _check_group(name: str, whose: str) -> None:
    if wrong := "".join(dict.fromkeys(each for each in name if not GROUP_NAME.fullmatch(each))) or (not name and "''"):
        raise ConfigurationError(
            f"{whose} would name the consumer group '<app>.{name}', in which {wrong!r} cannot be. Give the handler another name "
            "with name=: letters, digits, '.', '_' or '-'. A group that has committed offsets already is kept with group=."
        )


def _check_length(group: str, whose: str) -> None:
    if not GROUP_NAME.fullmatch(group):
        raise ConfigurationError(
            f"{whose} would name the consumer group {group!r} of {len(group)} characters, and 200 are possible. Give the "
            "handler a shorter name with name=. A group that has committed offsets already is kept with group=."
        )


def _check_retry_groups(routes: Sequence[Route], app: str) -> None:
    """Refuse a handler that would be in the group by which another one's retries are read."""
    groups = {route.group or f"{app}.{route.name}": route for route in routes}
    for route in routes:
        group = f"{app}.{route.name}{RETRY_SUFFIX}"
        if route.retry_topic and group in groups:
            raise ConfigurationError(
                f"the retries of handler {route.name!r} are read by group {group!r}, which would have handler "
                f"{groups[group].name!r}, too; give that one another name= or group=."
            )


def _retry(retry: RetryPolicy | int | None) -> RetryPolicy:
    if isinstance(retry, RetryPolicy):
        return retry
    try:
        return RetryPolicy() if retry is None else RetryPolicy(attempts=retry)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"retry={retry!r} is no number of attempts: {error}.") from error


def _check_timer(function: Any, name: str) -> None:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(
            f"timer {name!r} is a generator, and nobody would ask it for anything: leave out yield."
        )
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ConfigurationError(f"timer {name!r} is called with nothing, which it cannot take: {error}.") from error
    except ValueError:
        return  # its signature is unknown


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
