"""Plan the faults of a simulated detector before a scan; the same settings and the same seed give the same plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from braggshot.errors import ConfigError

Kind = Literal["begin", "frame", "truncated", "end", "abort", "dead"]


@dataclass(frozen=True)
class Faults:
    """Faults of the simulated detector; a share is a fraction of the frames of a scan [1].

    Parameters
    ----------
    drop : share of frames that never come
    duplicate : share of frames that come twice
    reorder : share of frames that swap places with the next frame
    late : share of frames that come at the very end of the scan
    truncate : share of frames of which only a part comes
    dead : number of frames after which the detector sends nothing more; None for never
    abort : number of frames after which the scan is aborted, and started anew; None for never
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    late: float = 0.0
    truncate: float = 0.0
    dead: int | None = None
    abort: int | None = None


@dataclass(frozen=True)
class Action:
    """One action of the simulated detector; `frame` is the index of the frame that it sends, -1 for none."""

    kind: Kind
    frame: int = -1


def parse(text: str) -> Faults:
    """Parse faults such as ``drop=0.02,reorder=0.05,dead=after:30,abort=at:10``.

    Raises
    ------
    ConfigError : if a fault is unknown, or its value is no valid share or number of frames.
    """
    parsed: dict[str, float | int] = {}
    for item in filter(None, text.split(",")):
        name, _, value = (part.strip() for part in item.partition("="))
        try:
            if name in {"dead", "abort"}:
                parsed[name] = int(value.removeprefix("after:").removeprefix("at:"))
            elif name in Faults.__dataclass_fields__:
                parsed[name] = float(value)
            else:
                raise ConfigError(f"unknown fault {name!r}; known: {', '.join(Faults.__dataclass_fields__)}.")
        except ValueError as error:
            raise ConfigError(f"fault {item!r}: expected a number, such as drop=0.02, dead=after:30 or abort=at:10.") from error
        if parsed[name] < 0 or (name not in {"dead", "abort"} and parsed[name] > 1):
            raise ConfigError(f"fault {item!r}: a share lies between 0 and 1, a count is not negative.")
    return Faults(**parsed)  # type: ignore[arg-type]


def fault_plan(frames: int, faults: Faults, seed: int) -> list[Action]:
    """Return, in order, the actions of a detector with `faults` in one scan of `frames` frames.

    The same arguments give the same actions. If the scan is aborted, it is begun again and played to its end. If the detector
    dies, the last action is "dead".
    """
    rng = np.random.default_rng(seed)
    plan: list[Action] = []
    if faults.abort is not None:
        plan += [Action("begin"), *_frame_actions(min(faults.abort, frames), faults, rng), Action("abort")]
    plan += [Action("begin"), *_frame_actions(frames, faults, rng), Action("end")]
    return plan if faults.dead is None else _cut_at_death(plan, faults.dead)


def _frame_actions(frames: int, faults: Faults, rng: np.random.Generator) -> Iterator[Action]:
    """Yield the frames of one scan in the order in which they are sent."""
    order = [index for index in range(frames) if rng.random() >= faults.drop]
    late = [index for index in order if rng.random() < faults.late]
    order = [*_swap_neighbours([index for index in order if index not in set(late)], faults.reorder, rng), *late]
    for index in order:
        yield Action("truncated" if rng.random() < faults.truncate else "frame", index)
        if rng.random() < faults.duplicate:
            yield Action("frame", index)


def _swap_neighbours(order: Sequence[int], share: float, rng: np.random.Generator) -> list[int]:
    """Swap a share of the frames with the next frame."""
    swapped = list(order)
    for place in range(len(swapped) - 1):
        if rng.random() < share:
            swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    return swapped


def _cut_at_death(plan: list[Action], after: int) -> list[Action]:
    """Cut the plan after a number of sent frames, and end it with the action "dead"."""
    sent = 0
    for place, action in enumerate(plan):
        if action.kind in {"frame", "truncated"}:
            if sent == after:
                return [*plan[:place], Action("dead")]
            sent += 1
    return [*plan, Action("dead")]
