"""How the docstrings of this project are read for the manual.

They say ``name : what it is [unit]`` on one line, because types stand in the signature. The numpy style of griffe expects a type
there; this extension puts the words where it looks for them, and makes Markdown of the few reStructuredText marks in use. Formulas
are drawn when the manual is built, by matplotlib, so that a page needs no script to show them.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any

import griffe

SECTION = re.compile(r"^(Parameters|Attributes|Raises)\n-+$", re.MULTILINE)
RETURNS = re.compile(r"^Returns\n-+\n((?:.+\n?)*)\n*", re.MULTILINE)
REFERENCES = re.compile(r"^References\n-+\n", re.MULTILINE)
ENTRY = re.compile(r"^(\S[^:\n]*?) : (.*)$")
UNDERLINE = re.compile(r"^[A-Z][A-Za-z ]+\n-+$", re.MULTILINE)
MATHS = re.compile(r"^\.\. math::[ \t]*(.*)\n((?:[ \t]*\n|[ \t]+\S.*\n?)*)", re.MULTILINE)
TABLE = re.compile(r"^=+(?: +=+)+\n(?:.+\n)+?=+(?: +=+)+\n(?:(?:.+\n)+?=+(?: +=+)+(?:\n|$))?", re.MULTILINE)
SPELLINGS = (  # of TeX, that matplotlib knows by another name or not at all
    (r"\\!|\\Big", ""),
    (r"\\;", r"\\ "),
    (r"\\tfrac", r"\\frac"),
    (r"\\(ge|ne|le)\b", r"\\\1q"),
    (r"\\sqrt (\w)", r"\\sqrt{\1}"),
)
INLINE_MATHS = re.compile(r":math:`([^`]*)`")


def markdown(text: str) -> str:
    """Return a docstring with its maths drawn, its tables as they stand and no marks of reStructuredText."""
    text = TABLE.sub(lambda found: f"```text\n{found[0]}```\n", text)
    text = MATHS.sub(lambda found: f"\n{formula(' '.join(f'{found[1]} {found[2]}'.split()))}\n\n", text)
    text = INLINE_MATHS.sub(r"`\1`", text)
    text = returns_first(REFERENCES.sub("", text))
    return re.sub(r"^(.*\S)?::$", lambda found: f"{found[1]}:" if found[1] else "", text, flags=re.MULTILINE)


@cache
def formula(tex: str) -> str:
    """Draw a formula as a picture inside the page; what matplotlib's subset of TeX lacks stays as it was written."""
    import matplotlib as mpl
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import math_to_image

    drawn = io.StringIO()
    plain = re.sub(r"\\text\{([^}]*)\}", lambda found: "\\mathrm{" + found[1].replace(" ", r"\ ") + "}", tex)
    for theirs, known in SPELLINGS:
        plain = re.sub(theirs, known, plain)
    with mpl.rc_context({"svg.hashsalt": "manual", "mathtext.fontset": "cm"}):
        try:
            math_to_image(f"${plain}$", drawn, prop=FontProperties(size=12), format="svg")
        except ValueError:
            return f"```text\n{tex}\n```"
    picture = base64.b64encode(drawn.getvalue().encode()).decode()
    return f'<img class="formula" alt="{escape(tex)}" src="data:image/svg+xml;base64,{picture}">'


def returns_first(text: str) -> str:
    """Move what a function returns before its parameters, in words where numpy's style wants types."""
    found = RETURNS.search(text)
    if found is None:
        return text
    given = "\n".join(line if line.startswith(" ") else f"- {line}" for line in found[1].splitlines())
    before, after = text[: found.start()], text[found.end() :]
    first = SECTION.search(before)
    place = first.start() if first else len(before)
    return f"{before[:place]}**Returns:**\n\n{given}\n\n{before[place:]}{after}"


def spread(text: str) -> str:
    """``name : words`` in the sections of a docstring as a name and, below it, words."""
    return "\n".join(_spread(text.splitlines()))


def _spread(lines: list[str]) -> Iterator[str]:
    inside = False
    for number, line in enumerate(lines):
        pair = "\n".join(lines[number : number + 2])
        if UNDERLINE.match(pair):
            inside = SECTION.match(pair) is not None
        entry = ENTRY.match(line) if inside else None
        if entry is None:
            yield line
        else:
            yield entry[1]
            yield f"    {entry[2]}"


class Compact(griffe.Extension):
    """Rewrite each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Handle each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = spread(markdown(obj.docstring.value))
