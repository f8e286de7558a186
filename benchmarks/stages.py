"""Where the processor's time of ``braggshot reconstruct`` goes, stage by stage, from the start of Python to the last file.

    python stages.py                                                          # a simulated crystal, 64^3, every method
    python stages.py --input example.spec --set input.scan=54 --set input.flat=whitefield.tif --methods oneshot auto
    python stages.py --top 20                                                 # and what took it, by cProfile

Each column is a process of its own. A stage's time is its own, without the stages that it calls: processor time, so that it
matters less who else uses the machine. The first run also compiles the passes of an iteration, so one column runs before and is
thrown away.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

METHODS = ["oneshot", "refine", "auto", "iterative"]
STAGES = {
    "read": ["io.registry.read"],
    "prepare": ["pipeline.prepare"],
    "network: load": ["phasing.strategies.load_network"],
    "network: familiar or new": ["phasing.hypotheses.find_novelties"],
    "network: predict": ["phasing.hypotheses.predict"],
    "coarse grid, wider spacings": [
        f"phasing.{name}" for name in ("tournament.crop_to_centre", "tournament.resample_guess", "pattern.widen", "problem.widen")
    ],
    "engine": [
        "phasing.strategies.run_starts",
        "phasing.auto.continue_starts",
        *(
            f"{module}.{function}"
            for module in ("phasing.tournament", "iterative.spacing")
            for function in ("run_starts", "continue_starts")
        ),
    ],
    "scores": [f"phasing.{module}.score" for module in ("auto", "hypotheses", "surface", "tournament", "selection")],
    "selection and verdict": ["phasing.auto.judge_starts"],
    "strain": ["pipeline._strain"],
    "write: cxi, vti": ["io.results.write", "io.results.vtk.write"],
    "write: png, html": ["report.write_png", "report.write_report"],
}
"""What is timed, under the names by which it is called."""


class Clock:
    """Processor time by stage; the innermost one is charged."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.stack, self.since = ["the rest"], time.process_time()

    def turn(self, name: str | None) -> None:
        """Into a stage, or out of the present one."""
        now = time.process_time()
        self.spent[self.stack[-1]] += now - self.since
        self.since = now
        self.stack.append(name) if name else self.stack.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, charged to a stage; also while a generator that it gave runs."""

        def within(call: Callable[[], Any]) -> Any:
            self.turn(name)
            try:
                return call()
            finally:
                self.turn(None)

        def drawn(running: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
            while True:
                try:
                    progress = within(lambda: next(running))
                except StopIteration as finished:
                    return finished.value
                yield progress

        def called(*args: Any, **options: Any) -> Any:
            found = within(lambda: function(*args, **options))
            return drawn(found) if isinstance(found, Generator) else found

        return called


def here(source: Path, method: str, sets: list[str], top: int) -> dict[str, float]:
    """Run one method in this process; seconds by stage."""
    started = time.process_time()
    from braggshot.cli import options
    from braggshot.cli.reconstruct import commands  # noqa: F401  # what the command imports

    command = time.process_time()
    import importlib

    from braggshot import output, pipeline, report  # noqa: F401
    from braggshot.io.results import vtk  # noqa: F401

    clock = Clock()
    before = {"Python": started, "import of the command": command - started, "other imports": clock.since - command}
    for stage, names in STAGES.items():
        for name in names:
            module, _, attribute = name.rpartition(".")
            home = importlib.import_module(f"braggshot.{module}")
            setattr(home, attribute, clock.timed(stage, getattr(home, attribute)))
    profile = cProfile.Profile(time.process_time)
    if top:
        profile.enable()
    settings = options.settings_of(None, sets, {"phasing": {"method": method}})
    with tempfile.TemporaryDirectory() as folder:
        output.check_writable(folder)
        output.write(pipeline.drain(pipeline.run(source, settings)), folder)
    profile.disable()
    clock.turn("end")
    if top:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(top)
    return {**before, **{stage: clock.spent[stage] for stage in [*STAGES, "the rest"]}}


def column(source: Path, method: str, sets: list[str], top: int) -> dict[str, float]:
    """The same of a process of its own."""
    command = [sys.executable, __file__, "--here", "--input", str(source), "--methods", method, "--top", str(top)]
    command += [word for assignment in sets for word in ("--set", assignment)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    )
    return found | {"total": sum(found.values())}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="scan (default: simulated)")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="A.B=C")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--top", type=int, default=0, help="functions of the profile to show; they slow what they look at")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(here(asked.input, asked.methods[0], asked.sets, asked.top)))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = asked.input
        if source is None:
            source = Path(folder, "crystal.cxi")
            simulate = ["simulate", "-o", str(source), "--seed", "1", "--shape", "64", "64", "64"]
            subprocess.run([sys.executable, "-m", "braggshot", *simulate], check=True, stdout=subprocess.DEVNULL)
        column(source, asked.methods[0], asked.sets, 0)
        columns = {method: column(source, method, asked.sets, asked.top) for method in asked.methods}
    print("| processor seconds | " + " | ".join(f"`{method}`" for method in columns) + " |\n|" + "---|" * (1 + len(columns)))
    for stage in next(iter(columns.values())):
        print(f"| {stage} | " + " | ".join(f"{found[stage]:.2f}" for found in columns.values()) + " |")


if __name__ == "__main__":
    main()
