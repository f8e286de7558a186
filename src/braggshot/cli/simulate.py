"""Draw a crystal and write its diffraction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braggshot.cli.options import Force, Seed, examples
from braggshot.cli.settings import HelpSettings
from braggshot.cli.terminal import say

commands = typer.Typer()


@commands.command(epilog=examples("braggshot simulate -o crystal.cxi --phase-range 3 --counts 1e5"))
def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="CXI file, or a folder with --raw.")],
    seed: Seed = 0,
    shape: Annotated[tuple[int, int, int], typer.Option(metavar="Z Y X", help="Shape of the volume [voxels].")] = (64, 64, 64),
    phase_range: Annotated[float, typer.Option(help="Highest minus lowest phase in the crystal [rad].")] = 3.0,
    counts: Annotated[float, typer.Option(help="Photons in the brightest voxel.")] = 1e5,
    raw: Annotated[bool, typer.Option("--raw", help="Write a raw scan as APS 34-ID-C would: SPEC, TIFF, dark, flat.")] = False,
    energy_scan: Annotated[bool, typer.Option("--energy-scan", help="With --raw: step the photon energy, not an angle.")] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the crystal, such as detector.gaps=1 or oversampling=2,3.")
    ] = None,
    force: Force = False,
    help_settings: HelpSettings = False,
) -> None:
    """Draw a random crystal and write its diffraction, with the true crystal beside the counts."""
    from braggshot.io.atomic import refuse_target
    from braggshot.output import check_writable

    if raw:
        _refuse_measured(output, force)
        say(_simulate_raw(output, seed, phase_range, counts, energy_scan))
        return
    if energy_scan:
        raise typer.BadParameter("an energy scan is a raw scan: add --raw", param_hint="--energy-scan")
    from braggshot import config
    from braggshot.crystals.sample import CrystalSettings, simulate_volume
    from braggshot.io.formats import cxi

    check_writable(output.parent)
    refuse_target(output, force=force)
    flags = {"shape": shape, "phase_range": (phase_range, phase_range), "counts": (counts, counts)}
    settings = config.resolve(CrystalSettings, config.merge(flags, config.parse_assignments(sets or [])))
    rho, volume = simulate_volume(seed, settings)
    cxi.write_data(output, volume, truth=rho)
    say(output)


def _refuse_measured(folder: Path, force: bool) -> None:
    """Refuse to write a raw scan among the files of a measurement; a scan that was simulated there before is replaced."""
    from braggshot.io.atomic import refuse_target
    from braggshot.output import check_writable

    spec = folder / f"{folder.name}.spec"
    refuse_target(spec, force=force)
    for name in ("dark.tif", "whitefield.tif"):
        refuse_target(folder / name, force=force or spec.exists())
    check_writable(folder)


def _simulate_raw(folder: Path, seed: int, phase_range: float, counts: float, energy_scan: bool) -> Path:
    """Simulate a rocking or energy scan and write its files as the beamline 34-ID-C does; return the path of the SPEC file."""
    from dataclasses import replace

    import numpy as np

    from braggshot.crystals.scan import ENERGY_SCAN, ScanSettings, gold_at_34idc, gold_by_energy, simulate_scan
    from braggshot.io.beamlines.aps_34idc import write_scan
    from braggshot.physics.geometry import scanned_values

    geometry, settings = (gold_by_energy(), ENERGY_SCAN) if energy_scan else (gold_at_34idc(), ScanSettings())
    scan, _ = simulate_scan(seed, geometry, replace(settings, phase_range=phase_range, counts=counts))
    return write_scan(folder, np.asarray(scan.frames), scanned_values(geometry), geometry, 1, scan.dark, scan.flat)
