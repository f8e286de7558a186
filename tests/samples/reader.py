"""Somebody who types what a page of the manual says, in a shell and in Python, in one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manual_pages import ROOT

PATIENCE = 1800.0
"""Seconds after which a command is taken to hang."""


SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


@dataclass(frozen=True)
class Running:
    """A command at work, what it prints in files.

    Parameters
    ----------
    process : the shell
    out, err : what it prints
    """

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def wait(self, for_what: Callable[[], object] = lambda: False) -> int | None:
        """Return the exit status, or None once `for_what` is true of a command that goes on."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and not for_what():
            assert time.monotonic() < deadline, f"it hangs: {self.told()}"
            time.sleep(0.05)
        return self.process.poll()

    def interrupt(self) -> int | None:
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def told(self) -> str:
        return f"{self.out.read_text()}\n{self.err.read_text()}"


@dataclass
class Reader:
    """A folder and the environment that its reader has made by `make demo`; Python's names last for the page.

    Parameters
    ----------
    folder : where everything is typed
    names : what Python knows
    """

    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def __post_init__(self) -> None:
        place = self.folder / ".venv" / "bin"
        place.mkdir(parents=True)
        (place / "braggshot").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m braggshot "$@"\n')
        (place / "braggshot").chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Return variables: `braggshot` is this tree's program and compiled once, no browser opens, and one core is used."""
        kept = {name: value for name, value in os.environ.items() if name not in {*SCREENS, "PYTHONDONTWRITEBYTECODE"}}
        paths = os.pathsep.join((str(self.folder / ".venv" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
        return kept | {"PATH": paths, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}

    @contextmanager
    def begin(self, command: str) -> Iterator[Running]:
        """Type a command; all that it started is ended."""
        out, err = (self.folder / ".venv" / f"{name}{time.monotonic_ns()}" for name in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                ["bash", "-c", command], cwd=self.folder, env=self.environment(), stdout=stdout, stderr=stderr,
                start_new_session=True, preexec_fn=_heed_ctrl_c,
            )  # fmt: skip
        try:
            yield Running(process, out, err)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def execute(self, program: str, page: str) -> None:
        """Run Python, where no browser opens."""
        here, opened = Path.cwd(), webbrowser.open
        os.chdir(self.folder)
        webbrowser.open = lambda *_, **__: True  # type: ignore[assignment]
        try:
            exec(compile(program, page, "exec"), self.names)
        finally:
            webbrowser.open = opened
            os.chdir(here)


def _heed_ctrl_c() -> None:
    """Undo what a shell does to commands that it runs in the background, such as these tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
