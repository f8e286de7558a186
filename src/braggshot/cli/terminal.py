"""Print for a person: every line that a command prints passes here, so that no name steers the terminal."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from braggshot.display import printable


def say(text: object, *, to_stderr: bool = False) -> None:
    """Print a text at once; of its control characters only line breaks stay."""
    lines = "\n".join(map(printable, str(text).split("\n")))
    print(lines, file=sys.stderr if to_stderr else sys.stdout, flush=True)


def console(stderr: bool = False) -> Any:
    """Return a console of rich that takes names as they are: no markup, no control characters."""
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(self, *given: Any, **named: Any) -> Iterable[Segment]:
            """Render a table, a bar or a text; control characters that rich itself made stay."""
            for part in super().render(*given, **named):
                lines = part.text if part.control else "\n".join(map(printable, part.text.split("\n")))
                yield Segment(lines, part.style, part.control)

    return PlainConsole(stderr=stderr, soft_wrap=True, markup=False, emoji=False)


class OneLine(logging.Formatter):
    """Format a message of the log as one printable line; where the program was at is for developers."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return printable(" ".join(record.getMessage().split()))


def prepare() -> None:
    """Prepare the streams: a letter that a terminal lacks is replaced, each message of the log is a line, libraries are silent.

    What a library warns of is answered where it arises; ``python -W`` shows it nevertheless.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    handler.setLevel(logging.WARNING)  # also for libraries whose loggers let more through
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
