from __future__ import annotations

import sys
import threading
from collections.abc import Generator

import pytest
import torch

from braggshot.iterative import iterate
from braggshot.iterative.iterate import IterativeConfig, run_starts
from braggshot.iterative.side_by_side import run_side_by_side
from braggshot.pipeline import drain


@pytest.fixture
def two_threads():
    """Give torch two threads, whatever the machine has, and put back what was."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _count(number: int, upto: int) -> Generator[int, None, int]:
    yield from range(upto)
    return number * 100


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_generator_runs_to_its_end_and_values_keep_their_order(workers, two_threads):
    running, seen = run_side_by_side([_count(number, 20 - number) for number in range(5)], workers), []
    try:
        while True:
            seen.append(next(running))
    except StopIteration as end:
        values = end.value
    assert values == [0, 100, 200, 300, 400]
    for number in range(5):
        assert [value for one, value in seen if one == number] == list(range(20 - number))
    assert torch.get_num_threads() == 2


def _fail() -> Generator[int, None, int]:
    yield 0
    raise ArithmeticError("broken")


def test_an_error_in_one_ends_all(two_threads):
    with pytest.raises(ArithmeticError, match="broken"):
        drain(run_side_by_side([_count(0, 10**9), _fail()], 2))
    assert torch.get_num_threads() == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("start")]


def test_closing_stops_the_threads(two_threads):
    running = run_side_by_side([_count(number, 10**9) for number in range(3)], 2)
    next(running)
    running.close()
    assert torch.get_num_threads() == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("start")]


def _states() -> Generator[tuple[int, bool, bool], None, None]:
    yield torch.get_num_threads(), sys.float_info.min / 2 == 0, torch.is_grad_enabled()


def test_threads_share_out_those_of_torch_and_keep_the_states_of_the_caller(two_threads):
    with iterate.flushed_denormals(), torch.no_grad():
        seen = [value for _, value in run_side_by_side([_states(), _states()], 2)]
    assert seen == [(1, True, False)] * 2


def test_starts_are_the_same_side_by_side_and_in_turn(data, two_threads, monkeypatch):
    config = IterativeConfig(recipe="10*HIO+5*ER")
    beside = drain(run_starts(data, config, 3, seed=4))
    monkeypatch.setattr(iterate, "SIDE_BY_SIDE", 0)
    in_turn = drain(run_starts(data, config, 3, seed=4))
    for one, other in zip(beside, in_turn, strict=True):
        assert one.seed == other.seed
        torch.testing.assert_close(one.rho, other.rho, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(one.history, other.history, rtol=1e-4, atol=1e-5)
