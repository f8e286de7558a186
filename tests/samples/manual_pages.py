"""The pages of the manual, and what they ask their reader to type, in the order of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PROGRAMS = {
    ".",
    "asv",
    "braggshot",
    "cd",
    "dask",
    "docker",
    "export",
    "make",
    "pip",
    "podman",
    "python",
    "rattler-build",
    "torchrun",
}
"""First words of the lines that are commands; other indented lines are formulas and lists of files."""


@dataclass(frozen=True)
class Step:
    """Something that a reader types or saves, as printed.

    Parameters
    ----------
    kind : "shell", "python", or "file" for the content of a settings file
    text : command, program or content
    """

    kind: str
    text: str


def code_lines(text: str) -> list[str]:
    """Lines of fenced and indented blocks, continued ones joined, without prompts and paths of the environment."""
    fenced = [line for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    indented = [line.strip() for line in FENCE.sub("", text).splitlines() if line.startswith("    ")]
    joined = "\n".join([*fenced, *indented]).replace("\\\n", " ")
    return [line.strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in joined.splitlines()]


def steps(text: str) -> Iterator[Step]:
    """Commands, programs and named settings files of a page, from top to bottom."""
    for block in re.findall(r"^```[\s\S]*?^```|^    (?:[^\n]|(?<=\\)\n)+", text, re.MULTILINE):
        words = block.replace("\\\n", " ").split()
        if block.startswith("```"):
            yield from _fenced(block)
        elif words and words[0] in PROGRAMS:
            yield Step("shell", " ".join(words))


def _fenced(block: str) -> Iterator[Step]:
    kind, body = block.removeprefix("```").partition("\n")[0], block.partition("\n")[2].removesuffix("```")
    if kind == "python":
        yield Step("python", body)
    elif kind == "toml" and re.match(r"# \w+\.toml\n", body):
        yield Step("file", body)


def bare(command: str) -> str:
    """Return a command without the remark behind it."""
    return re.sub(r" # .*", "", command)
