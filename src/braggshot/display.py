"""Show records and running work to a user of Python: a short text for a record, and a line of progress.

A notebook is recognised by its kernel. Nothing is printed where neither a terminal nor a notebook is there to show it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, cast

_WIDTH, _LINES = 110, 10  # longest line, and largest number of lines, of the text of a record
_NOT_PRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST = 60  # longest text of one value [characters]


def printable(text: object) -> str:
    """Write a text, such as the name of a file, so that it changes nothing but itself on a terminal, a page or a picture.

    Control characters, those that turn the direction of writing, and bytes of names that are not UTF-8 become question marks of
    Unicode; line breaks too.
    """
    return _NOT_PRINTABLE.sub("\ufffd", str(text))


class Described:
    """Base class of records that hold arrays: their text names each field that has a value, and stays within ten lines."""

    def __repr__(self) -> str:
        named = ((one.name, getattr(self, one.name)) for one in fields(cast(Any, self)))
        text = ", ".join(f"{name}={brief(value)}" for name, value in named if not _is_empty(value))
        return within_lines(f"{type(self).__name__}({text})")


class Named(Described):
    """Base class of records with a name, which files and streams choose: it can be printed everywhere."""

    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))


def within_lines(text: str) -> str:
    """Break a text into lines; leave out what ten lines do not hold."""
    lines = textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "    …"])


def _is_empty(value: Any) -> bool:
    """Tell whether a field has no value: None, or a text, tuple or table that holds nothing."""
    return value is None or (isinstance(value, str | tuple | Mapping) and not value)


def brief(value: Any) -> str:
    """Write a value as a short text; of an array its type and shape, of a table its first names."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _brief_array(value)
    if isinstance(value, Described):
        return f"{type(value).__name__}(…)"
    if isinstance(value, Mapping):
        return "{" + ", ".join([*map(str, list(value)[:4]), *(["…"] if len(value) > 4 else [])]) + "}"
    if isinstance(value, tuple) and (len(value) > 3 or isinstance(value[0], Described)):
        return f"<{len(value)} × {type(value[0]).__name__}>"
    if isinstance(value, tuple):
        return f"({', '.join(map(brief, value))})"
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _brief_array(array: Any) -> str:
    """Write the values of a short vector; of any other array its type and shape, and of a long vector its ends."""
    shape = tuple(array.shape)
    if len(shape) == 1 and 0 < shape[0] <= 3:
        return f"[{', '.join(f'{value:.4g}' for value in array)}]"
    ends = f", {array[0]:.4g} … {array[-1]:.4g}" if len(shape) == 1 and shape[0] else ""
    return f"<{array.dtype} {'×'.join(map(str, shape))}{ends}>"


def in_notebook() -> bool:
    """Tell whether this program runs in the kernel of a notebook."""
    interactive = sys.modules.get("IPython")
    return interactive is not None and hasattr(interactive.get_ipython(), "kernel")


@contextmanager
def progress_line(title: str, is_shown: bool | None = None) -> Iterator[Callable[[Any], None]]:
    """Show a phase retrieval in a line on stderr: its step, its error, and the time left; yield what is called at each iteration.

    Parameters
    ----------
    title : what is worked on
    is_shown : None shows the line in a terminal and in a notebook only
    """
    from tqdm import tqdm

    if is_shown is None:
        is_shown = in_notebook() or (sys.stderr is not None and sys.stderr.isatty())
    with tqdm(
        desc=f"{printable(title)}: reading", total=1, file=sys.stderr, disable=not is_shown, mininterval=0.25, dynamic_ncols=True
    ) as bar:

        def show(progress: Any) -> None:
            bar.total = progress.n_iterations
            bar.set_description_str(f"{printable(title)}: start {progress.starts[0] + 1}", refresh=False)
            error = "" if progress.error is None else f", error {float(progress.error.min()) ** 0.5:.4f}"
            bar.set_postfix_str(f"{progress.step}{error}", refresh=False)
            bar.update(progress.iteration - bar.n)

        yield show
