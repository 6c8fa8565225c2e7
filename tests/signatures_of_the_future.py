"""Handlers of a module whose annotations are texts, for test_signatures.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import msgspec

from octopus.events import Event
from octopus.signatures import Signature, inspect_handler

if TYPE_CHECKING:
    from decimal import Decimal


class File(msgspec.Struct):
    path: str


async def global_type(file: File) -> None: ...


async def batch_of_events(files: list[Event[File]]) -> None: ...


def for_type_checkers_only(amount: Decimal) -> None: ...


def returns_what_only_type_checkers_know(file: File) -> Decimal: ...


def unrelated_default(file: File, amount: Decimal | None = None) -> None: ...


def local_type() -> Signature:
    class Local(msgspec.Struct):
        path: str

    async def handler(event: Event[Local]) -> None: ...

    return inspect_handler(handler)


def local_type_used_inside_another_function() -> Signature:
    class Local(msgspec.Struct):
        path: str

    def register() -> Signature:
        async def handler(event: Local) -> None: ...

        return inspect_handler(handler)

    return register()


def local_type_in_a_method() -> Signature:
    class Local(msgspec.Struct):
        path: str

    class Handlers:
        async def on_event(self, event: Local) -> None: ...

    return inspect_handler(Handlers().on_event)


def local_type_closed_over() -> Callable[..., Any]:
    class Local(msgspec.Struct):
        path: str

    async def handler(event: Local) -> None:
        Local("made inside")

    return handler


def decorated() -> Signature:
    class Local(msgspec.Struct):
        path: str

    def shield(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def shielded(*arguments: Any, **options: Any) -> Any:
            return await function(*arguments, **options)

        return shielded

    @shield
    async def handler(event: Local) -> None: ...

    return inspect_handler(handler)
