"""Small parts by themselves, without a broker: patterns, ledger, ordering, the road of a record, serde, imports."""

from benchmarks.cases import Case

CLIENTS = "benchmarks.clients"


def cases() -> list[Case]:
    """Return all cases, group by group."""
    return [*_patterns(), *_ledger(), *_ordering(), *_road(), *_serde(), *_imports()]


PATTERNS: dict[str, dict[str, object]] = {
    "three fields, match": {"kind": ["created"], "quality": ["good"], "user": {"group": ["imaging"]}},
    "three fields, no match": {"kind": ["deleted"], "quality": ["good"], "user": {"group": ["imaging"]}},
    "operators": {
        "kind": [{"anything-but": ["deleted"]}],
        "path": [{"prefix": "/data/"}],
        "user": {"id": [{"numeric": [">=", 0]}]},
    },
}


MIDDLEWARE = "a record through middleware"

AWAITING = "1,000 futures at once"


def _patterns() -> list[Case]:
    return [
        _case("patterns", group, name, module, environment=environment, pattern=pattern, form=form)
        for group, pattern in PATTERNS.items()
        for name, module, environment, form in (
            ("octopus, decoded value", f"{CLIENTS}.patterns", "", "value"),
            ("octopus, bytes", f"{CLIENTS}.patterns", "", "bytes"),
            ("json.loads alone", f"{CLIENTS}.patterns", "", "loads"),
            ("moto, decoded value", "benchmarks.peers.moto", "moto", "value"),
            ("localstack, decoded value", "benchmarks.peers.localstack", "localstack", "value"),
        )
    ]


def _ledger() -> list[Case]:
    module = f"{CLIENTS}.parts"
    return [
        _case("ledger", "receive and settle", name, module, way="ledger", window=window)
        for name, window in (("in order", 1), ("window 64", 64), ("window 1,024", 1024))
    ] + [_case("ledger", "offset map", "write 1,000 ranges", module, way="map")]


def _ordering() -> list[Case]:
    module = f"{CLIENTS}.parts"
    lanes = [
        _case("ordering", "put, take, release", name, module, way="lanes", **options)
        for name, options in (
            ("partition", {"ordering": "partition"}),
            ("key, 1,000 keys", {"ordering": "key", "keys": 1000}),
            ("key, 1 key", {"ordering": "key", "keys": 1}),
            ("none", {"ordering": "none"}),
        )
    ]
    runner = [
        _case("ordering", "a record through the runner", name, module, way=way, **options)
        for name, way, options in (
            ("bare loop: decode, await the handler", "bare", {}),
            ("by partition", "runner", {"ordering": "partition"}),
            ("by key", "runner", {"ordering": "key"}),
            ("no order", "runner", {"ordering": "none"}),
        )
    ]
    around = [
        _case("ordering", MIDDLEWARE, name, module, way="runner", ordering="partition", middleware=count)
        for name, count in (("none", 0), ("one", 1), ("three", 3))
    ]
    futures = [
        _case("ordering", AWAITING, name, module, way="awaiting", depth=depth)
        for name, depth in (("awaited as they are", 0), ("a task for each", 1), ("a task, three coroutines deep", 3))
    ]
    return lanes + runner + around + futures


ROAD = (
    "all of it",
    "batches: split, checksum",
    "record objects, key and value",
    "headers",
    "decode",
    "call",
    "claim, trace, settle",
    "all of it, in batches of 500",
)
"""Parts of what a record costs between a fetched frame and its handler."""


def _road() -> list[Case]:
    return [
        _case("road", group, part, f"{CLIENTS}.road", part=part, size=size, headers=headers)
        for group, size, headers in (
            ("100 B", 100, False),
            ("463 B", 463, True),
            ("2.5 KB", 2500, True),
            ("64 KB", 65_536, True),
        )
        for part in ROAD
        if headers or part != "headers"
    ]


SERDE = {
    "decode": (
        *("json.loads", "Any", "dict", "TypedDict", "dataclass", "attrs", "Struct", "Struct, narrow"),
        *("pydantic", "pydantic, narrow", "str", "bytes", "Struct, with headers", "Struct, MessagePack"),
    ),
    "encode": ("json.dumps", "dict", "dataclass", "attrs", "Struct", "pydantic", "str", "Struct, MessagePack"),
}


def _serde() -> list[Case]:
    return [
        _case("serde", f"{direction} {size}", name, f"{CLIENTS}.serde", size=size_bytes, direction=direction, name=name)
        for size, size_bytes in (("100 B", 100), ("463 B", 463), ("2.5 KB", 2500))
        for direction, names in SERDE.items()
        for name in names
    ]


def _imports() -> list[Case]:
    return [
        _case("import", "a new process", name, f"{CLIENTS}.imports", statement=statement)
        for name, statement in (
            ("python alone", "pass"),
            ("import octopus", "import octopus"),
            ("octopus.Pattern", "from octopus import Pattern"),
            ("octopus.Octopus", "from octopus import Octopus"),
            ("octopus.triggers.aws", "import octopus.triggers.aws"),
            ("octopus.worker", "import octopus.worker"),
            ("the command line", "import octopus.cli.program"),
            ("import aiokafka", "import aiokafka"),
            ("import confluent_kafka", "import confluent_kafka"),
        )
    ]


_FIRST: dict[tuple[str, str], str] = {}


def _case(suite: str, group: str, label: str, module: str, environment: str = "", **options: object) -> Case:
    figure = "milliseconds" if suite == "import" else "nanoseconds"
    baseline = _FIRST.setdefault((suite, group), label)
    return Case(
        suite, group, label, module, figure=figure, baselines=(baseline,), options=options, environment=environment
    )
