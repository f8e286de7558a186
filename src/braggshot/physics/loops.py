"""Compile loops over the voxels of an array, where whole-array operations would take many times as long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(function: Loop) -> Loop:
    """Compile a function at its first call; the machine code is kept on disk where some cache folder can be written."""
    try:
        return cast(Loop, njit(function, cache=True, fastmath=True, nogil=True, error_model="numpy"))
    except RuntimeError:  # neither beside this file nor in the user's own cache
        return cast(Loop, njit(function, fastmath=True, nogil=True, error_model="numpy"))
