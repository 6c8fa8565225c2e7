"""Routes: what is taken, what is refused and with which sentence."""

import functools
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from octopus import Octopus, Router
from octopus.errors import ConfigurationError, PatternError
from octopus.retries import RetryPolicy
from octopus.routing import Route
from octopus.testing import DONE, TestClient


async def handler(value: int) -> None: ...


async def tick() -> None: ...


class Clock:
    async def __call__(self) -> None: ...


REFUSED = {
    "no topic": (lambda: Router().on([]), "on([]) reads no topic; name at least one."),
    "a bad topic": (lambda: Router().on("a b"), "'a b' is not a topic name: 1 to 249 letters"),
    "no text": (lambda: Router().on([7]), "7 is not a topic name"),  # type: ignore[list-item]
    "a pattern over bytes": (lambda: Router().on(re.compile(b"a")), "matches bytes; topic names are text"),  # type: ignore[arg-type]
    "a long topic": (lambda: Router().on("a" * 250), "is not a topic name"),
    "neither a topic nor several": (lambda: Router().on(7), "on(7) reads no topic: give a topic's name, several, or"),  # type: ignore[arg-type]
    "to no topic": (lambda: on(to=5), "handler 'handler': to=5 is not a topic name"),
    "dead letters to no topic": (lambda: on(dead_letter=5), "dead_letter=5 is not a topic name"),
    "retries in no topic": (lambda: on(retry_topic=5), "retry_topic=5 is not a topic name"),
    "no attempts": (
        lambda: on(retry="x"),
        "retry='x' is no number of attempts: attempts='x' of a RetryPolicy is no number: give",
    ),
    "an app's name": (lambda: Octopus(5), "5 cannot name an app: 1 to 200 letters"),  # type: ignore[arg-type]
    "ordering": (lambda: on(ordering="keys"), "ordering='keys' is none of 'partition', 'key', 'none'."),
    "concurrency": (lambda: on(concurrency=0), "concurrency=0 must be a whole number of events, 1 or more."),
    "within": (lambda: on(within=-1), "within=-1.0 must not be negative."),
    "timeout": (lambda: on(timeout=0), "timeout=0.0 must be longer than nothing."),
    "dead_letter=True": (lambda: on(dead_letter=True), "dead_letter=True says nothing"),
    "dead_letter": (lambda: on(dead_letter="a b"), "dead_letter='a b' is not a topic name"),
    "to": (lambda: on(to="a/b"), "to='a/b' is not a topic name"),
    "dead letters that come back": (lambda: on(dead_letter="t"), "a dead letter would come straight back"),
    "dead letters that match": (
        lambda: Router().on(re.compile("t.*"), dead_letter="tomb")(handler),
        "a dead letter would come straight back",
    ),
    "start": (lambda: on(start="now"), "start='now' is neither 'earliest' nor 'latest'"),
    "a time without zone": (lambda: on(start=datetime(2026, 1, 1)), "has no time zone; say which"),
    "attempts": (lambda: on(retry=-1), "retry=-1 is no number of attempts"),
    "an empty batch": (lambda: on_batch(batch=0), "batch=0 must be a whole number of events, 1 or more."),
    "a batch by key": (lambda: on_batch(batch=5, ordering="key"), "ordering='key' does not go with batch=."),
    "interval": (lambda: Router().every(0), "every(0): the interval must be longer than nothing."),
    "the same name": (lambda: twice(), "there is a handler named 'handler' already"),
    "a class": (lambda: Router().on("t")(Octopus), "is a class; a handler is a function"),
}


LONG = "t" * 238
NAMES = {
    "a dead-letter topic that is too long": (
        lambda: Router().on(["t", LONG]),
        f"dead letters of '{LONG}' would go to a topic of 250 characters, and 249 are possible",
    ),
    "a topic without a name": (lambda: Router().on("..", dead_letter="tomb"), "'..' is not a topic name"),
    "its own dead letters": (
        lambda: Router().on(["t", "t.dead-letter"]),
        "it reads 't' and 't.dead-letter', where its own dead letters go",
    ),
    "retries among dead letters": (
        lambda: Router().on("t", retry_topic="t.dead-letter"),
        "retry_topic='t.dead-letter' is where dead letters of 't' go",
    ),
    "results among retries": (lambda: Router().on("t", to="again", retry_topic="again"), "are both 'again'"),
    "an empty group": (lambda: Router().on("t", group=""), "group='' names no group"),
    "letters beyond ASCII": (
        lambda: Router().on("t", name="größe"),
        "in which 'öß' cannot be. Give the handler another name",
    ),
    "the same, for a retry topic": (
        lambda: Router().on("t", name="größe", group="g", retry_topic=True),
        "'öß' cannot be",
    ),
    "a blank and a slash": (lambda: Router().on("t", name="a b/c"), "in which ' /' cannot be"),
    "no name": (lambda: Router().on("t", name="\N{NO-BREAK SPACE}"), "cannot be"),
    "a lambda": (
        lambda: lambda _: Router().on("t")(lambda value: None),
        "handler '<lambda>' would name the consumer group",
    ),
    "a long group": (lambda: Octopus("a" * 100).on("t", name="h" * 100), "of 201 characters, and 200 are possible"),
    "a long group of retries": (
        lambda: Octopus("a" * 100).on("t", name="h" * 99, retry_topic=True),
        "of 206 characters, and 200 are possible",
    ),
    "dead letters among retries": (
        lambda: Octopus("app").on("t", dead_letter="app.handler.retry", retry_topic=True),
        "dead_letter='app.handler.retry' is the topic in which its retries wait",
    ),
    "results among its retries": (
        lambda: Octopus("app").on("t", to="app.handler.retry", retry_topic=True),
        "to='app.handler.retry' is the topic in which its retries wait",
    ),
    "its own retries": (
        lambda: Octopus("app").on(["t", "app.handler.retry"], retry_topic=True),
        "it reads 'app.handler.retry', in which its own retries wait",
    ),
}


@pytest.mark.parametrize(("decorator", "sentence"), NAMES.values(), ids=NAMES.keys())
def test_names_that_would_be_derived_and_cannot_work_are_refused_at_decoration(decorator: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        decorator()(handler)
    assert sentence in str(caught.value)


ALLOWED = {
    "the longest dead-letter topic": lambda: Router().on("t" * 237),
    "a longer topic, with another one": lambda: Router().on(LONG, dead_letter="tomb"),
    "a longer topic, without one": lambda: Router().on(LONG, dead_letter=False),
    "a name beyond ASCII that names no group": lambda: Router().on("t", name="größe", group="app.groesse"),
    "a lambda with a name": lambda: lambda _: Router().on("t", name="quick")(lambda value: None),
    "dead letters of others": lambda: Router().on("t.dead-letter"),
    "the longest group": lambda: Octopus("a" * 100).on("t", name="h" * 99),
    "a long name, and a group": lambda: Octopus("a" * 100).on("t", name="h" * 100, group="g"),
}


@pytest.mark.parametrize("decorator", ALLOWED.values(), ids=ALLOWED.keys())
def test_names_that_work_are_taken(decorator: Any) -> None:
    decorator()(handler)


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [("ü", "'üt' is not a topic name"), ("p" * 240, "would go to a topic of 253 characters")],
    ids=["characters", "length"],
)
def test_names_with_a_prefix_are_checked_too(prefix: str, sentence: str) -> None:
    router = Router()
    router.on("t")(handler)
    with pytest.raises(ConfigurationError) as caught:
        Octopus("app").include(router, prefix=prefix)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("first", ["the handler", "its retries"])
def test_no_handler_is_in_the_group_that_reads_the_retries_of_another(first: str) -> None:
    app, retried, other = Octopus("app"), Router(), Router()
    retried.on("t", retry_topic=True)(handler)
    other.on("u", name="handler.retry")(handler)
    routers = (other, retried) if first == "the handler" else (retried, other)
    app.include(routers[0])
    with pytest.raises(ConfigurationError, match=r"'app.handler.retry', which would have handler 'handler.retry', too"):
        app.include(routers[1])


def on(**options: Any) -> Any:
    return Router().on("t", **options)(handler)


def on_batch(**options: Any) -> None:
    @Router().on("t", **options)
    async def batch_handler(values: list[int]) -> None: ...


def twice() -> None:
    router = Router()
    router.on("t")(handler)
    router.on("u")(handler)


@pytest.mark.parametrize(("register", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_work_is_refused_with_a_sentence(register: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        register()
    assert sentence in str(caught.value)


def test_a_filter_that_does_not_compile_is_refused_at_decoration() -> None:
    with pytest.raises(PatternError):
        Router().on("t", filter={"size": [{"numerics": 1}]})


def only(router: Router) -> Route:
    (route,) = router.routes
    return route


def test_the_decorated_function_is_returned_unchanged() -> None:
    assert Router().on("t")(handler) is handler
    assert Router().every(1)(tick) is tick


def test_topics_are_one_several_or_a_pattern() -> None:
    assert only_of("t").topics == ("t",)
    assert only_of(["t", "u", "t"]).topics == ("t", "u")
    assert only_of(re.compile("t.*")).reads("tea")
    assert not only_of(re.compile("t.*")).reads("a tea")
    assert not only_of(["t", "u"]).reads("v")


def only_of(topic: Any, **options: Any) -> Route:
    router = Router()
    router.on(topic, **options)(handler)
    return only(router)


def test_durations_and_retries_come_in_several_spellings() -> None:
    route = only_of("t", within=timedelta(minutes=1), timeout=timedelta(seconds=3), retry=7)
    assert (route.within, route.timeout, route.retry) == (60.0, 3.0, RetryPolicy(attempts=7))
    assert only_of("t", retry=RetryPolicy(attempts=1)).retry.attempts == 1
    assert only_of("t").retry == RetryPolicy()


class Store:
    async def save(self, value: int) -> None: ...

    async def __call__(self, value: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (functools.partial(handler), "handler"),
        (Store().save, "save"),
        (Store(), "Store"),
    ],
    ids=["partial", "method", "object"],
)
def test_anything_callable_can_be_a_handler(function: Any, name: str) -> None:
    router = Router()
    router.on("t")(function)
    assert only(router).name == name


@pytest.mark.parametrize("kind", ["partial", "method", "object", "sync"])
def test_every_kind_of_handler_is_called(kind: str) -> None:
    seen = []

    class Holder:
        async def method(self, value: int) -> None:
            seen.append(value)

        async def __call__(self, value: int) -> None:
            seen.append(value)

    def sync(value: int) -> None:
        seen.append(value)

    async def with_more(prefix: int, value: int) -> None:
        seen.append(value)

    app = Octopus("app")
    functions = {
        "partial": functools.partial(with_more, 1),
        "method": Holder().method,
        "object": Holder(),
        "sync": sync,
    }
    app.on("t", name="chosen")(functions[kind])
    with TestClient(app) as client:
        assert client.publish("t", 5) == {"chosen": DONE}
    assert seen == [5]


def test_a_router_is_included_several_times_under_prefixes() -> None:
    inner, outer, app = Router(), Router(), Octopus("app")
    inner.on("in", to="out", dead_letter="dead")(handler)
    inner.on(re.compile("(?i)raw-.*"), name="raw")(handler)
    inner.every(5, name="tick")(tick)
    outer.include(inner, prefix="one.")
    outer.include(inner, prefix="two.")
    app.include(outer)
    assert [route.name for route in app.routes] == ["one.handler", "one.raw", "two.handler", "two.raw"]
    assert [timer.name for timer in app.timers] == ["one.tick", "two.tick"]
    first, pattern = app.routes[:2]
    assert (first.topics, first.to, first.dead_letter) == (("one.in",), "one.out", "one.dead")
    assert pattern.reads("one.RAW-1")
    assert not pattern.reads("oneXraw-1")
    assert app.group_of(first) == "app.one.handler"


def test_including_a_name_that_is_taken_is_refused() -> None:
    inner, app = Router(), Octopus("app")
    inner.on("t")(handler)
    app.include(inner)
    with pytest.raises(ConfigurationError, match="'handler' already"):
        app.include(inner)


def test_timers_are_named_after_their_function() -> None:
    router = Router()
    router.every(timedelta(seconds=2))(tick)
    router.every(3)(Clock())
    assert [(timer.name, timer.seconds) for timer in router.timers] == [("tick", 2.0), ("Clock", 3.0)]


async def two(first: int, second: int) -> None: ...


async def endless() -> AsyncIterator[None]:
    yield


WITHOUT_SENSE = {
    "@app.on without parentheses": (
        lambda app: app.on(handler),
        '@on stands above handler without a topic: write @app.on("…")',
    ),
    "@app.every without parentheses": (
        lambda app: app.every(handler),
        "@every stands above handler without an interval: write @app.every(5) for every five seconds.",
    ),
    "every('5s')": (lambda app: app.every("5s"), "every('5s'): durations are seconds or a timedelta: every(5)."),
    "every('2 min')": (
        lambda app: app.every("2 min"),
        "every('2 min'): durations are seconds or a timedelta: every(120).",
    ),
    "every('0.5h')": (lambda app: app.every("0.5h"), "durations are seconds or a timedelta: every(1800)."),
    "every('soon')": (lambda app: app.every("soon"), "every('soon'): durations are seconds or a timedelta."),
    "timeout='10s'": (
        lambda app: app.on("t", timeout="10s")(handler),
        "timeout='10s': durations are seconds or a timedelta: timeout=10.",
    ),
    "within='100ms'": (lambda app: app.on("t", within="100ms")(handler), "a timedelta: within=0.1."),
    "a timer with an argument": (
        lambda app: app.every(5)(handler),
        "timer 'handler' is called with nothing, which it cannot take: missing a required argument: 'value'.",
    ),
    "a timer that is a generator": (lambda app: app.every(5)(endless), "timer 'endless' is a generator"),
    "@app.middleware('http')": (
        lambda app: app.middleware("http"),
        "'http' is no middleware: write @app.middleware, without arguments, above",
    ),
    "middleware with one argument": (
        lambda app: app.middleware(handler),
        "middleware 'handler' is called with a record and call_next, which it cannot take: too many positional",
    ),
    "middleware that yields": (lambda app: app.middleware(endless), "middleware 'endless' is a generator"),
    "a lifespan without @asynccontextmanager": (
        lambda app: Octopus("app", lifespan=endless),
        "lifespan=endless is a generator: put @asynccontextmanager of contextlib above it.",
    ),
    "a lifespan that never yields": (lambda app: Octopus("app", lifespan=handler), "lifespan=handler never yields"),
    "a lifespan that is none": (lambda app: Octopus("app", lifespan=7), "lifespan=7 cannot be called"),
}


@pytest.mark.parametrize(("register", "sentence"), WITHOUT_SENSE.values(), ids=WITHOUT_SENSE)
def test_slips_of_the_first_day_are_answered_with_what_to_write(register: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        register(Octopus("app"))
    assert sentence in str(refused.value)


def test_middleware_may_be_any_callable_of_two() -> None:
    class Counting:
        async def __call__(self, record: Any, call_next: Any) -> Any:
            return await call_next(record)

    app = Octopus("app")
    app.middleware(Counting())
    app.middleware(functools.partial(two))
    app.every(timedelta(minutes=1))(lambda: None)
