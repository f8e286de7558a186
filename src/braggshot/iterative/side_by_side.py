"""Run independent generators side by side, each in a thread of its own.

Starts do not need each other. Phased one after another, each with all threads of torch, they would wait for every thread after
every sweep over a small volume; on a machine that is busy with something else, such as a browser, these waits take most of the
time. Side by side, no start waits for another. The compiled loops and torch's operations release Python's lock.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

import torch

Y = TypeVar("Y")
R = TypeVar("R")


def run_side_by_side(runs: Sequence[Generator[Y, None, R]], workers: int) -> Generator[tuple[int, Y], None, list[R]]:
    """Run generators, `workers` at a time; yield what each yields, with its number; the value lists the values of all.

    The threads of torch are shared out among the workers, and are given back at the end. An error in one generator ends all, and
    so does closing this one.

    Parameters
    ----------
    runs : the generators; they may not share what they change
    workers : number of threads; with 1, the generators run one after another in the thread of the caller
    """
    if workers <= 1:
        return (yield from _run_in_turn(runs))
    news: SimpleQueue[tuple[int, Y] | Future[R]] = SimpleQueue()
    stop, threads = Event(), torch.get_num_threads()

    def finish(number: int) -> R:
        while True:
            if stop.is_set():
                raise GeneratorExit
            try:
                news.put((number, next(runs[number])))
            except StopIteration as end:
                value: R = end.value
                return value

    # Torch keeps these states for each thread apart.
    states = (threads // workers, sys.float_info.min / 2 == 0, torch.is_grad_enabled())
    with ThreadPoolExecutor(workers, "start", initializer=_begin_thread, initargs=states) as pool:
        try:
            futures = [pool.submit(finish, number) for number in range(len(runs))]
            for future in futures:
                future.add_done_callback(news.put)
            left = len(runs)
            while left:
                new = news.get()
                if isinstance(new, Future):
                    new.result()
                    left -= 1
                else:
                    yield new
            return [future.result() for future in futures]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _run_in_turn(runs: Sequence[Generator[Y, None, R]]) -> Generator[tuple[int, Y], None, list[R]]:
    finished = []
    for number, run in enumerate(runs):
        while True:
            try:
                yielded = next(run)
            except StopIteration as end:
                finished.append(end.value)
                break
            yield number, yielded
    return finished


def _begin_thread(threads: int, flushes_denormals: bool, has_gradients: bool) -> None:
    torch.set_num_threads(max(1, threads))
    torch.set_flush_denormal(flushes_denormals)
    torch.set_grad_enabled(has_gradients)
