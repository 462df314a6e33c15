"""Several requests at once, with one error of our tree instead of an exception group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar, overload

from .errors import OperatorError

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@overload
async def together(a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> tuple[A, B, C]: ...
@overload
async def together(a: Awaitable[A], b: Awaitable[B], /) -> tuple[A, B]: ...
@overload
async def together(*steps: Awaitable[Any]) -> tuple[Any, ...]: ...
async def together(*steps: Awaitable[Any]) -> tuple[Any, ...]:
    """Await all of them. All are over when this returns or raises.

    Raises:
        OperatorError: the first failure of our own tree; the others are cancelled.
    """

    async def one(step: Awaitable[Any]) -> Any:
        return await step

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(step)) for step in steps]
    except BaseExceptionGroup as failures:
        ours = failures.subgroup(OperatorError)
        if ours is None:
            raise
        raise ours.exceptions[0] from None
    return tuple(task.result() for task in tasks)
