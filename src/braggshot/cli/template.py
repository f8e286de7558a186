"""Print a commented file of the settings that matter, to be filled in."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import typer

from braggshot.cli.options import examples
from braggshot.cli.settings import list_all
from braggshot.cli.terminal import say
from braggshot.config import Setting

commands = typer.Typer()

# Settings that users change -> an example of a value, for settings without a default; None prints the default.
MATTER = {
    "input.scan": "54",
    "input.dark": '"dark.tif"',
    "input.flat": '"flat.tif"',
    "input.mask": '"mask.tif"',
    "input.energy_ev": "9000.0",
    "input.distance_m": "0.5",
    "input.pixel_size_m": "55e-6",
    "prepare.binning": None,
    "prepare.shape": "[64, 64, 64]",
    "prepare.centre": None,
    "prepare.detector": '"maxipix"',
    "prepare.aliens": None,
    "prepare.background": None,
    "phasing.method": None,
    "phasing.seed": None,
    "phasing.device": None,
    "phasing.search_starts": None,
    "phasing.max_tournaments": None,
    "phasing.partial_coherence": None,
    "strain.reflection": "[1, 1, 1]",
    "strain.lattice": "[4.078e-10]",
    "strain.lattice_angles_deg": None,
    "strain.frame": None,
    "strain.voxel_size": "5e-9",
    "strain.noise_samples": None,
    "strain.half_data": None,
    "output.formats": None,
}
WIDTH = 100  # longest line of a comment


@commands.command(epilog=examples("braggshot template > my.toml", "braggshot reconstruct scan.cxi --config my.toml"))
def template() -> None:
    """Print a file of settings with their units and meanings; every line is a comment until you remove its first #."""
    say("\n".join(write_template()))


def write_template() -> Iterator[str]:
    """Write the lines of the file of settings."""
    known: dict[str, Setting] = {}
    for part in list_all():
        for setting in part.table.settings:
            known.setdefault(setting.name, setting)
    yield "# Settings of braggshot. Remove the # before a line to change it, and give the file by --config."
    yield "# All settings: braggshot settings"
    stage = ""
    for name, example in MATTER.items():
        table, _, key = name.partition(".")
        if table != stage:
            stage = table
            yield f"\n[{stage}]"
        yield from (f"# {line}" for line in textwrap.wrap(known[name].meaning, WIDTH))
        yield f"#{key} = {example or known[name].default}"
