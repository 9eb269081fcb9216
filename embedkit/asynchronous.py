"""`AsyncCollection`: a collection's questions for programs that run an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from embedkit.collection import Collection

__all__ = ["AsyncCollection"]

P = ParamSpec("P")
T = TypeVar("T")


def _in_thread(call: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    @wraps(call)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(call, *args, **kwargs)

    return awaited


class AsyncCollection:
    """The questions of a `Collection`, each a coroutine with the same arguments, answer and errors.

    Every call runs in a thread of the event loop's own pool (`asyncio.to_thread`), so that the loop goes on meanwhile:
    encoders, backends and databases let go of Python's lock for most of their time. It is no asynchronous driver, and
    one search takes as long as before; how many run at once is up to the pool (by default four more than there are
    cores, at most 32). A search whose task is cancelled runs to its end in its thread, and its answer is dropped.

    ::

        products = embedkit.AsyncCollection(kit.collection("products"))
        hits, more = await asyncio.gather(products.search(text="red shoe"), products.search(keywords="bag"))
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.search = _in_thread(collection.search)
        self.search_many = _in_thread(collection.search_many)
        self.get = _in_thread(collection.get)
        self.count = _in_thread(collection.count)
        self.picture = _in_thread(collection.picture)

    def __repr__(self) -> str:
        return f"AsyncCollection({self.collection!r})"
