"""What is private in aiokafka stands in two files, is there in the aiokafka that is installed, and is touched nowhere else.

No file outside of the transports can have anything of aiokafka: the import contracts see to that.
"""

import ast
import functools
import importlib
import logging
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import aiokafka
import pytest

import octopus
from octopus.transports.kafka import engine, producer_engine
from octopus.transports.kafka.seeing import inner, module_seeing, seeing

PACKAGE = Path(octopus.__file__).parent
ENGINES = (Path(engine.__file__), Path(producer_engine.__file__))
PUBLIC = (
    "aiokafka.errors",
    "aiokafka.structs",
    "aiokafka.abc",
    "aiokafka.protocol.",
    "aiokafka.coordinator.assignors.",
)
"""Modules that any file of the transport may use: errors and structures, and the wire's schemas, from which requests are made."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def declared(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a file's classes, functions and objects have by its own doing."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                yield node.attr
            case ast.Assign(targets=[ast.Name(id="__slots__")]):
                yield from (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))


def touched(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield the private names that a file reads or writes, also by name, and whether an object of its own has them."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if is_private(name):
                yield name, True
            case ast.Attribute(attr=name) if is_private(name):
                yield name, False
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr" | "attrgetter" | "inner")):
                texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
                for name in ".".join(text for text in texts if isinstance(text, str)).split("."):
                    if is_private(name):
                        yield name, False


@functools.cache
def theirs() -> frozenset[str]:
    """Return all private names of the aiokafka that is installed."""
    return frozenset(
        name
        for path in Path(aiokafka.__file__).parent.rglob("*.py")
        for name in declared(ast.parse(path.read_text(encoding="utf-8")))
        if is_private(name)
    )


def strays(source: str) -> set[str]:
    """Return the private names of aiokafka, and its modules, that a file of the package uses and should not."""
    tree = ast.parse(source)
    own = {*declared(tree)}
    names = {
        name
        for name, is_of_self in touched(tree)
        # what is called like something of aiokafka is taken for it, on any object but one of the file's own classes
        if name in theirs() and not (is_of_self and name in own)
    }
    modules = {
        module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
        if module.partition(".")[0] == "aiokafka" and not f"{module}.".startswith(PUBLIC)
    }
    return names | modules


def test_every_private_name_is_there_in_the_aiokafka_that_is_installed() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in ENGINES]
    ours = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    used = {name for tree in trees for name, _ in touched(tree)} - ours
    assert len(used) > 40
    assert used - theirs() == set()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (engine.Client, "aiokafka.client.AIOKafkaClient"),
        (engine.Connection, "aiokafka.conn.AIOKafkaConnection"),
        (engine.OAuth, "aiokafka.conn.OAuthAuthenticator"),
        (engine.Consumer, "aiokafka.consumer.consumer.AIOKafkaConsumer"),
        (engine.Fetcher, "aiokafka.consumer.fetcher.Fetcher"),
        (engine.PartitionRecords, "aiokafka.consumer.fetcher.PartitionRecords"),
        (engine.Coordinator, "aiokafka.consumer.group_coordinator.GroupCoordinator"),
        (producer_engine.Producer, "aiokafka.producer.producer.AIOKafkaProducer"),
        (producer_engine.OffsetCommit, "aiokafka.producer.sender.TxnOffsetCommitHandler"),
        (producer_engine.Produce, "aiokafka.producer.sender.SendProduceReqHandler"),
        (producer_engine.Sender, "aiokafka.producer.sender.Sender"),
        (producer_engine.Numbers, "aiokafka.producer.transaction_manager.TransactionManager"),
        (producer_engine.Accumulator, "aiokafka.producer.message_accumulator.MessageAccumulator"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_private_name_of_a_class_is_one_of_the_class_that_it_extends(ours: type, theirs: str) -> None:
    base = ours.__bases__[0]
    assert f"{base.__module__}.{base.__qualname__}" == theirs
    of_base = {name for each in base.__mro__[:-1] for name in declared(class_of(each.__module__, each.__name__))}
    inside = class_of(ours.__module__, ours.__name__)
    names = {name for name, is_of_self in touched(inside) if is_of_self}
    names |= {node.name for node in inside.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    names |= {
        call.args[0].value.partition(".")[0]
        for call in ast.walk(inside)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "inner"
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    }
    assert {name for name in names if is_private(name)} <= of_base
    doors = {*vars(ours)} - {name for name in vars(ours) if name.startswith("_")}
    replaced = {"send", "create_request", "handle_response", "do", "reenqueue", "increment_sequence_number"}
    assert {name for name in doors if hasattr(base, name)} <= replaced, "a door hides nothing of what it opens"


def class_of(module: str, name: str) -> ast.ClassDef:
    """Return the source of a class."""
    path = Path(__import__(module, fromlist=["_"]).__file__)
    (found,) = (
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in PACKAGE.glob("transports/**/*.py") if path not in ENGINES],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_no_other_file_touches_what_is_private_in_aiokafka(path: Path) -> None:
    assert strays(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(engine): return engine._fetcher._records", {"_fetcher", "_records"}),
        ("class Mine(Connection):\n  def f(self): return self._writer", {"_writer"}),
        (
            "class Mine:\n  def __init__(self): self._client = 1\n  def f(self, other): return other._client",
            {"_client"},
        ),
        ("class Mine:\n  def __init__(self): self._client = 1\n  def f(self): return self._client", set()),
        ("def f(coordinator): return getattr(coordinator, '_heartbeat_task')", {"_heartbeat_task"}),
        ("from aiokafka.consumer.fetcher import FetchResult", {"aiokafka.consumer.fetcher"}),
        ("import aiokafka", {"aiokafka"}),
        ("import aiokafka.errors as kafka", set()),
        ("from aiokafka.protocol.fetch import FetchRequest", set()),
        ("def f(header): return header._replace(count=1)", set()),
    ],
)
def test_what_strays_is_found(source: str, found: set[str]) -> None:
    assert strays(source) == found


# seeing


def greet(name: str = "you", *, mark: str = "!") -> str:
    """Greet."""
    return WORD + f" {name}{mark}"


WORD = "Hello"


def test_a_function_that_sees_something_else_leaves_the_first_as_it_was() -> None:
    polite = seeing(greet, WORD="Good morning")
    assert (polite(), polite("me", mark=".")) == ("Good morning you!", "Good morning me.")
    assert (greet(), polite.__doc__, polite.__name__) == ("Hello you!", "Greet.", "greet")


def test_a_function_that_does_not_use_a_name_cannot_see_something_else_for_it() -> None:
    with pytest.raises(AttributeError, match="greet does not use WORLD"):
        seeing(greet, WORD="Hi", WORLD="Hi")


def test_classes_of_a_module_that_use_a_name_meet_each_other_and_something_else_for_it() -> None:
    this = sys.modules[__name__]
    seen = module_seeing(this, WORD="Good morning")
    host = seen.Host()
    assert type(host.guest()) is seen.Guest
    assert (host.welcome(), host.guest().all_say()) == ("Good morning guest!", ["Good morning there!", "Good morning!"])
    assert (Host().welcome(), type(Host().guest())) == ("Hello guest!", Guest)
    assert seen.Unconcerned is Unconcerned
    assert isinstance(host, Host)
    assert (seen.Host.__name__, seen.Host.__module__) == ("Host", this.__name__)
    with pytest.raises(AttributeError, match=r"no class of .* uses WORLD"):
        module_seeing(this, WORLD="Hi")


class Guest:
    @classmethod
    def say(cls, to: str) -> str:
        return f"{WORD}{to}!"

    def all_say(self) -> list[str]:
        return [self.say(to) for to in (" there", "")]


class Host:
    def guest(self) -> Guest:
        return Guest()

    def welcome(self) -> str:
        return (lambda: f"{WORD} {type(self.guest()).__name__.lower()}!")()


class Unconcerned:
    pass


SILENT = {
    "aiokafka.admin.client": "ours asks with a plain client",
    "aiokafka.helpers": "TLS contexts are made by the settings",
    "aiokafka.coordinator.assignors.abstract": "it logs nothing",
}
"""Modules of aiokafka that have a log, and that no client of ours logs with."""


def test_all_of_aiokafka_that_logs_for_our_clients_has_our_log() -> None:
    imported = {
        each.name: importlib.import_module(each.name) for each in pkgutil.walk_packages(aiokafka.__path__, "aiokafka.")
    }
    loud = {name for name, module in imported.items() if isinstance(getattr(module, "log", None), logging.Logger)}
    ours = {
        ast.unparse(call.args[0])
        for path in ENGINES
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "module_seeing"
    }
    assert (ours - loud, loud - ours) == (set(), {*SILENT})


def test_a_door_reads_and_does_not_write() -> None:
    class Room:
        window = inner("_window")

        def __init__(self) -> None:
            self._window = "a view"

    room = Room()
    assert room.window == "a view"
    with pytest.raises(AttributeError):
        room.window = "a wall"
