"""Declare the options that commands share, check their values, and merge the settings of a file with those of options.

An option whose values never change is a ``Literal``: typer writes its help, proposes its values at TAB and refuses all others. An
option whose values depend on the installation uses `one_of`, with a function that returns the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from braggshot.pipeline import Settings

# Type of a function that lists the values that an option accepts.
Names = Callable[[], Iterable[str]]


def one_of(names: Names) -> dict[str, Any]:
    """Make the parameters of a ``typer.Option`` that proposes `names` at TAB and refuses any other value with exit status 2."""

    def check(value: Any) -> Any:
        known = list(names()) if value else []
        wrong = [word for word in ([value] if isinstance(value, str) else value or ()) if word not in known]
        if wrong:
            raise typer.BadParameter(f"{wrong[0]!r} is not one of {', '.join(map(repr, known))}.")
        return value

    return {"callback": check, "autocompletion": proposing(names)}


def examples(*commands: str) -> str:
    """Join commands to the text below the help of a command, each in a line of its own."""
    return "\n\n".join(f"`{command}`" for command in commands)


def proposing(names: Names) -> Callable[[str], list[str]]:
    """Make the function that completes the value of an option at TAB from `names`.

    If no name fits, the shell proposes files instead.
    """

    def propose(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return propose


def registered(group: str) -> list[str]:
    """List the names that other packages register as entry points of `group`, without importing these packages."""
    from importlib.metadata import entry_points

    return [point.name for point in entry_points(group=group)]


def networks() -> list[str]:
    """List the names of the networks that are shipped with braggshot."""
    return sorted(file.stem for file in (Path(__file__).parents[1] / "weights").glob("*.safetensors"))


def readers() -> list[str]:
    """List the names of the file formats that can be read."""
    from braggshot.io.registry import formats

    return [known.name for known in formats()]


# Device on which a command computes; "auto" takes a GPU if there is one.
Device = Literal["auto", "cpu", "cuda"]
Inputs = Annotated[list[Path], typer.Argument(help="Raw scan: CXI, SPEC, HDF5, NPZ, TIFF, or a folder or pattern of images.")]
Format = Annotated[str | None, typer.Option("--format", help="Reader to use instead of looking at the file.", **one_of(readers))]
Network = Annotated[str | None, typer.Option(help="Name or file of a trained network.", autocompletion=proposing(networks))]
# Option ``--set a.b=c``: gives the setting ``a.b`` the value ``c``; it may be repeated for further settings.
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting as a.b=c, such as input.scan=54; `braggshot settings` lists them.", metavar="A.B=C"),
]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
Force = Annotated[bool, typer.Option("--force", help="Replace also files that braggshot did not write.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random number.")]


def layered(config: Path | None, sets: list[str] | None, flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Merge the settings of a file with those of flags and of ``--set``; flags overrule the file, and ``--set`` overrules both."""
    from braggshot import config as configuration

    layers = [configuration.read_toml(config)] if config else []
    return configuration.merge(*layers, flags or {}, configuration.parse_assignments(sets or []))


def forced(force: bool) -> dict[str, Any]:
    """Return nested settings that let results replace any file."""
    return {"output": {"force": True}} if force else {}


def settings_of(config: Path | None, sets: list[str] | None, flags: Mapping[str, Any]) -> Settings:
    """Return the settings from a file, from flags and from ``--set``; they are checked, and the rest takes its defaults."""
    from braggshot.pipeline import resolve

    return resolve(layered(config, sets, flags))
