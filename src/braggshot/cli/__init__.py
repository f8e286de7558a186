"""Run braggshot from the shell, one module per command; heavy imports stay inside each command, so that ``--help`` answers at once.

terminal      print for a person, without what steers a terminal
options       declare options that several commands share, check their values, merge settings
settings      list all settings with their meaning
metadata      declare the flags that state facts about a scan: --energy-kev, --hkl, ...
template      print a file of the settings that matter
progress      draw progress bars on stderr
cluster       phase many scans at once: ``--cluster``
repeats       read repeats of one scan and add them: ``--sum``
reconstruct   phase raw scans, print and write the crystals
postprocess   compute strain of an object that another program found
convert       write the object of one program for another
series        follow one crystal through many scans
tensor        join several reflections of one crystal
calibrate     find the detector's place from a scan of its arm
info          say what the reader sees in a file
simulate      draw a crystal and write its diffraction
doctor        say which parts of braggshot can run on this machine
train         train a network
evaluate      compare methods on known crystals
plan          plan a measurement before the beam is on
stack         phase thousands of patterns, each by one pass of the network
view          show results in the browser
live          show a scan while it is measured
emit          send the frames of a scan as a detector would
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Annotated

import typer

from braggshot.cli import (
    calibrate,
    convert,
    doctor,
    emit,
    evaluate,
    info,
    live,
    plan,
    postprocess,
    reconstruct,
    series,
    settings,
    simulate,
    stack,
    template,
    tensor,
    train,
    view,
)  # fmt: skip
from braggshot.cli.options import examples
from braggshot.cli.terminal import prepare, say
from braggshot.display import printable
from braggshot.errors import BraggshotError
from braggshot.gate import lacks_memory

# Threads that spin while they wait slow every other program on a shared machine down, and themselves with it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Python ends by searching all of torch for garbage several times: seconds on a busy machine, with the prompt already waited for.
atexit.register(gc.freeze)

app = typer.Typer(
    help="3D images of nanocrystals from Bragg coherent diffraction.",
    epilog=examples("braggshot reconstruct scan.cxi", "braggshot info scan.spec", "braggshot simulate -o crystal.cxi"),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"braggshot {version('braggshot')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the program an error arose.")] = False,
) -> None:
    """Declare the options of the program that need no command: ``--version`` and ``--debug``; `main` reads the latter."""


for module in (
    reconstruct, postprocess, convert, series, tensor, info, calibrate, plan, settings, template, simulate, doctor, train, evaluate,
    stack, live, view, emit,
):  # fmt: skip
    app.add_typer(module.commands)

# Objects made until Python looks for garbage, while a command runs: the libraries that it imports make a million objects and no
# garbage, and with Python's own threshold, 700, the search takes a tenth of the time of an import.
_GARBAGE = (50_000, 4, 4)
_INTERRUPTED = 130  # exit status with which typer ends a command after Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong options."""
    if arguments is None:
        prepare()
        arguments = sys.argv[1:]
    debug = "--debug" in arguments
    command, thresholds = typer.main.get_command(app), gc.get_threshold()
    gc.set_threshold(*_GARBAGE)
    try:
        status = command.main([a for a in arguments if a != "--debug"], prog_name="braggshot", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        status = _explain(error)
    finally:
        gc.set_threshold(*thresholds)
    if status == _INTERRUPTED:
        say("braggshot: interrupted; nothing was half-written.", to_stderr=True)
        return 1
    return int(status or 0)


def _explain(error: BaseException) -> int:
    """Print on stderr why a command failed, and return the exit status; nothing is printed for an interruption."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _INTERRUPTED
    if isinstance(error, typer.Exit):
        return error.exit_code
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error, whose class typer keeps to itself
        setattr(error, "message", printable(getattr(error, "message", None) or ""))  # noqa: B010  # typer keeps its class to itself
        error.show()
        return int(error.exit_code)
    known = isinstance(error, BraggshotError)
    words = " ".join(str(error).split())
    if lacks_memory(error):
        known, words = True, f"there is not enough memory ({words}); fewer voxels need less, see prepare.shape and prepare.binning."
    say(f"braggshot: {words if known else f'{type(error).__name__}: {words} (this is a bug; --debug shows where)'}", to_stderr=True)
    return 1
