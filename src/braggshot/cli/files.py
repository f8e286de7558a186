"""Commands about files: info, simulate, doctor."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from braggshot.cli.completion import proposing
from braggshot.cli.options import Format, Seed, Sets

commands = typer.Typer()


@commands.command(epilog="braggshot info example.spec --set input.scan=54")
def info(
    path: Annotated[Path, typer.Argument(help="Raw scan, result, or trained network (file or shipped name).")],
    format: Format = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what the reader sees in a file."""
    from braggshot.config import parse_assignments
    from braggshot.io.registry import describe
    from braggshot.nn.weights import is_network, load_network

    facts = (
        asdict(load_network(path)[1])
        if is_network(path)
        else describe(path, format, **parse_assignments(sets or []).get("input", {}))
    )
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if value not in (None, [], {}):
            print(f"{name:14} {value}")


@commands.command(epilog="braggshot simulate -o crystal.cxi --phase-range 3 --counts 1e5")
def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="CXI file, or a folder with --raw.")],
    seed: Seed = 0,
    shape: Annotated[tuple[int, int, int], typer.Option(help="Voxels, Z Y X.")] = (64, 64, 64),
    phase_range: Annotated[float, typer.Option(help="Highest minus lowest phase in the crystal [rad].")] = 3.0,
    counts: Annotated[float, typer.Option(help="Photons in the brightest voxel.")] = 1e5,
    raw: Annotated[bool, typer.Option("--raw", help="Write a raw scan as APS 34-ID-C would: SPEC, TIFF, dark, flat.")] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Such as detector.gaps=1 or oversampling=[2,3].", autocompletion=proposing("--set")),
    ] = None,
) -> None:
    """Draw a crystal and write its diffraction, with the truth beside the counts."""
    if raw:
        print(_simulate_raw(output, seed, phase_range, counts))
        return
    from braggshot import config
    from braggshot.crystals.sample import CrystalSettings, simulate_volume
    from braggshot.io.formats import cxi

    flags = {"shape": shape, "phase_range": (phase_range, phase_range), "counts": (counts, counts)}
    settings = config.resolve(CrystalSettings, config.merge(flags, config.parse_assignments(sets or [])))
    rho, volume = simulate_volume(seed, settings)
    cxi.write_data(output, volume, truth=rho)
    print(output)


@commands.command(epilog="braggshot doctor --json")
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Say what runs here: versions, devices, memory, weights, and which optional parts are missing."""
    from braggshot.doctor import examine

    facts = examine()
    if as_json:
        print(json.dumps(facts))
        return
    for topic, found in facts.items():
        if found:
            print(topic)
        for name, value in found.items():
            print(f"  {name:16} {value}")


def _simulate_raw(folder: Path, seed: int, phase_range: float, counts: float) -> Path:
    """A rocking scan on disk as 34-ID-C writes it; returns the SPEC file."""
    import numpy as np

    from braggshot.crystals.scan import ScanSettings, simulate_scan
    from braggshot.io.beamlines.aps_34idc import write_scan

    scan, _ = simulate_scan(seed, settings=ScanSettings(phase_range=phase_range, counts=counts))
    assert scan.rocking_angle is not None
    assert scan.geometry is not None
    return write_scan(folder, np.asarray(scan.frames), scan.rocking_angle, scan.geometry, 1, scan.dark, scan.flat)
