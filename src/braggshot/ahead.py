"""Work that is not waited for: what comes next is made beside what is going on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_END = object()


@contextmanager
def ahead(items: Iterable[T], depth: int = 1) -> Iterator[Iterator[T]]:
    """What an iterable gives, made by a thread of its own before it is asked for.

    An error of the thread is raised where its item is asked for; when the ``with`` ends, early or not, so does the thread.

    Parameters
    ----------
    items : drawn in the thread, one after the other
    depth : how many wait, besides the one that is being made
    """
    waiting: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
        except BaseException as error:
            failure.append(error)
        put(_END)

    def given() -> Iterator[T]:
        while (item := waiting.get()) is not _END:
            yield item  # type: ignore[misc]  # the queue holds what `items` gave
        if failure:
            raise failure[0]

    thread = threading.Thread(target=work, name="braggshot-ahead", daemon=True)
    thread.start()
    try:
        yield given()
    finally:
        stop.set()
        thread.join()
