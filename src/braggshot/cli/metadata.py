"""Declare the flags that state facts about a scan, such as ``--energy-kev`` and ``--hkl``, for all commands that read scans.

A flag is a setting under an everyday name, in an everyday unit; the setting's dotted name stands in the flag's help.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from braggshot import config
from braggshot.cli.options import proposing
from braggshot.cli.settings import HelpSettings
from braggshot.errors import ConfigError


def detectors() -> list[str]:
    """List the names of the detectors whose gaps are known."""
    from braggshot.prepare.detectors import KNOWN

    return list(KNOWN)


@dataclass(frozen=True)
class Flag:
    """A flag that stands for a setting.

    Parameters
    ----------
    setting : dotted name of the setting
    annotation : type of the value, with its `typer.Option`
    convert : function that turns the value of the flag into that of the setting
    """

    setting: str
    annotation: Any
    convert: Callable[[Any], Any] = lambda value: value


def _file(words: str) -> Any:
    return Annotated[Path | None, typer.Option(help=words)]


def parse_numbers(text: str) -> list[float]:
    """Parse numbers that are separated by commas or spaces, with or without brackets: ``1,1,1``, ``[1, -1, 1]``, ``1 1 1``.

    Raises
    ------
    ConfigError : if a part is no number.
    """
    try:
        return [float(part) for part in text.strip("[]() ").replace(",", " ").split()]
    except ValueError:
        raise ConfigError(f"expected numbers such as 1,1,1, found {text!r}.") from None


def parse_hkl(text: str) -> list[int]:
    """Parse Miller indices: ``1,1,1``, ``1,-1,1``, or ``111`` where each index is one digit.

    Raises
    ------
    ConfigError : if these are not three integers.
    """
    numbers = [float(digit) for digit in text] if text.isdigit() and len(text) == 3 else parse_numbers(text)
    if len(numbers) != 3 or any(number % 1 != 0 for number in numbers):
        raise ConfigError(f"--hkl expects three whole numbers such as 1,1,1, found {text!r}.")
    return [round(number) for number in numbers]


# Flag of the command line -> the setting that it stands for. The name of the parameter is that of the flag, with _ for -.
FLAGS: dict[str, Flag] = {
    "scan": Flag(
        "input.scan",
        Annotated[str | None, typer.Option(metavar="N", help="Number of the scan, in a file with several.")],
        lambda text: int(text) if text.isdigit() else text,
    ),
    "dark": Flag("input.dark", _file("Image without beam, .tif or .npy [counts per frame]."), str),
    "flat": Flag("input.flat", _file("Image of uniform light (flat field), .tif or .npy."), str),
    "mask": Flag("input.mask", _file("Mask, .tif or .npy, 0 where pixels are good."), str),
    "energy_kev": Flag(
        "input.energy_ev",
        Annotated[float | None, typer.Option(metavar="KEV", help="Photon energy, in place of the file's [keV].")],
        lambda value: value * 1e3,
    ),
    "distance_m": Flag(
        "input.distance_m",
        Annotated[float | None, typer.Option(metavar="M", help="Sample to detector, in place of the file's [m].")],
    ),
    "detector": Flag(
        "prepare.detector",
        Annotated[
            str | None, typer.Option(metavar="NAME", help="Detector whose gaps are masked.", autocompletion=proposing(detectors))
        ],
    ),
    "hkl": Flag(
        "strain.reflection",
        Annotated[str | None, typer.Option(metavar="H,K,L", help="Reflection, such as 1,1,1.")],
        parse_hkl,
    ),
    "lattice": Flag(
        "strain.lattice",
        Annotated[str | None, typer.Option(metavar="A", help="Edge of the cubic unit cell, or a,b,c [Å].")],
        lambda text: [edge * 1e-10 for edge in parse_numbers(text)],
    ),
}


def with_metadata(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a decorator that adds ``--help-settings`` and the flags of `FLAGS` to a command, except those in `left_out`.

    The command has a parameter ``stated``, and receives in it the nested settings that the flags state.
    """
    flags = {name: flag for name, flag in FLAGS.items() if name not in left_out}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [p for name, p in inspect.signature(command).parameters.items() if name != "stated"]
        listed = [(p.name, hints[p.name], p.default) for p in own]
        listed += [(name, flag.annotation, None) for name, flag in flags.items()]
        listed += [("help_settings", HelpSettings, False)]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in flags}
            del values["help_settings"]  # its callback has ended the program if it was given
            command(**values, stated=as_settings(given))

        # Typer reads the flags of a command from its signature; without `__wrapped__` it finds this one.
        del run.__wrapped__
        run.__annotations__ = {name: hint for name, hint, _ in listed}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=given, annotation=hint)
                for name, hint, given in listed
            ]
        )
        return run

    return decorate


def as_settings(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the values of flags into nested settings; a flag without a value is left out."""
    table: dict[str, Any] = {}
    for name, value in stated.items():
        if value is not None:
            stage, key = FLAGS[name].setting.split(".")
            table = config.merge(table, {stage: {key: FLAGS[name].convert(value)}})
    return table
