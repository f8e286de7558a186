"""Find the place of a detector from a scan of its arm through the direct beam."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.metadata import with_metadata
from braggshot.cli.options import Force, Format, Sets, examples, layered
from braggshot.cli.terminal import say

if TYPE_CHECKING:
    from braggshot.physics.arm_scan import Effect
    from braggshot.prepare.direct_beam import Calibration

commands = typer.Typer()

# Value -> its name for a person, the unit, the factor from SI, and the number of decimals.
SHOWN = {
    "distance": ("distance", "m", 1.0, 6),
    "row": ("direct beam, row", "pixel", 1.0, 3),
    "column": ("direct beam, column", "pixel", 1.0, 3),
    "rotation": ("detector rotation", "degrees", 57.29577951308232, 4),
    "tilt_row": ("tilt cos(azimuth)", "degrees", 57.29577951308232, 3),
    "tilt_column": ("tilt sin(azimuth)", "degrees", 57.29577951308232, 3),
}


@commands.command(epilog=examples("braggshot calibrate exp.spec --scan 12 -o geometry.toml --reflection exp.spec@54"))
@with_metadata("hkl", "lattice")
def calibrate(
    path: Annotated[Path, typer.Argument(help="Scan of the detector's arm through the direct beam.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="TOML file for --set input.geometry=FILE.")],
    reflection: Annotated[
        Path | None, typer.Option(help="Rocking scan, as FILE or FILE@SCAN: say what the errors do to its reflection.")
    ] = None,
    force: Force = False,
    format: Format = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, last.")] = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Find distance, direct beam, rotation and tilt of the detector, with errors, from a scan of its arm."""
    from dataclasses import replace

    from braggshot.io import read
    from braggshot.io.atomic import refuse_target
    from braggshot.io.beamlines.place import write_place
    from braggshot.prepare.direct_beam import calibrate

    refuse_target(output, [path], force=force)
    table = layered(None, sets, stated)
    options = table.get("input", {})
    scan = read(path, format, **options)
    found = calibrate(replace(scan, detector=table.get("prepare", {}).get("detector", scan.detector)))
    effects = {} if reflection is None else effects_on(reflection, found, format, options)
    if as_json:
        say(json.dumps(as_record(found, effects)))
    else:
        say("\n".join([*describe(found), *describe_effects(effects)]))
    write_place(output, found.fit.geometry, [f"written by braggshot calibrate from {path.name}", *describe(found)])
    if not as_json:
        say(f"wrote {output}")


def effects_on(reflection: Path, found: Calibration, format: str | None, options: dict[str, Any]) -> dict[str, Effect]:
    """Compute what the errors do to the reflection of a rocking scan."""
    from braggshot.errors import DataError
    from braggshot.io import read
    from braggshot.physics.arm_scan import find_effects
    from braggshot.prepare import prepare

    name, at, number = str(reflection).rpartition("@")
    chosen = {"scan": int(number)} if at and number.isdigit() else {}
    kept = {key: value for key, value in options.items() if key not in {"geometry", "scan"}}  # those are of the arm's scan
    volume = prepare(read(name if chosen else reflection, format, **kept, **chosen))
    if volume.geometry is None or volume.window is None:
        raise DataError(f"{reflection}: the files hold no geometry, so nothing can be said of its reflection.")
    return find_effects(found.fit, volume.geometry, volume.window, volume.shape)


def values_of(found: Calibration) -> dict[str, float]:
    """Return the values that were found, under the names of their errors, in SI units."""
    from math import cos, sin

    place = found.fit.geometry
    tilts = (place.tilt * cos(place.tilt_azimuth), place.tilt * sin(place.tilt_azimuth))
    return dict(zip(SHOWN, (place.distance, *place.direct_beam, place.detector_rotation, *tilts), strict=True))


def describe(found: Calibration) -> Iterator[str]:
    """Say what was found, a line each."""
    from braggshot.errors import list_numbers

    fit, values = found.fit, values_of(found)
    yield f"{int(fit.used.sum())} of {len(fit.used)} frames used; the beam lies {fit.spread:.2g} pixel off the fit"
    for why in dict.fromkeys(found.left_out.values()):
        yield f"left out: {list_numbers([index for index, reason in found.left_out.items() if reason == why])} ({why})"
    for name, (words, unit, factor, decimals) in SHOWN.items():
        value, sigma = factor * values[name], factor * fit.sigma[name]
        yield f"{words:20} {value:12.{decimals}f} ± {sigma:.2g} {unit}"
    if not fit.is_tilt_known:
        yield "these angles do not tell the whole tilt: what they do not tell counts as 0 ± 1 degrees"


def describe_effects(effects: dict[str, Effect]) -> Iterator[str]:
    """Say what the errors do to a reflection, a line each."""
    if effects:
        yield f"{'error of the reflection by':28} {'d':>10} {'volume':>10} {'orientation':>18}"
    for name, effect in effects.items():
        words = SHOWN[name][0] if name in SHOWN else "all of them"
        turned = 57.29577951308232 * effect.orientation
        yield f"{words:28} {100 * effect.spacing:8.2g} % {100 * effect.volume:8.2g} % {turned:10.2g} degrees"


def as_record(found: Calibration, effects: dict[str, Effect]) -> dict[str, Any]:
    """Return all that was found as one table for JSON, in SI units."""
    from dataclasses import asdict

    return {
        "values": values_of(found),
        "sigma": found.fit.sigma,
        "spread_pixel": found.fit.spread,
        "frames": len(found.fit.used),
        "left_out": {str(index): why for index, why in found.left_out.items()},
        "is_tilt_known": found.fit.is_tilt_known,
        "effects": {name: asdict(effect) for name, effect in effects.items()},
    }
