"""Plan a measurement before the beam is on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.metadata import detectors, parse_hkl, parse_numbers
from braggshot.cli.options import Force, examples, proposing
from braggshot.cli.terminal import say

if TYPE_CHECKING:
    from braggshot.physics.lattice import Lattice
    from braggshot.plan import Plan

commands = typer.Typer()

EXAMPLE = "braggshot plan --energy-kev 9 --distance-m 1 --detector maxipix --size-nm 300 --lattice 4.078 --hkl 111 --instrument p10"
Number = float | None


def instruments() -> list[str]:
    """List the names of the built-in diffractometers."""
    from braggshot.io.beamlines.instruments import INSTRUMENTS

    return list(INSTRUMENTS)


def _number(metavar: str, words: str, name: str | None = None) -> Any:
    return typer.Option(*([name] if name else []), metavar=metavar, help=words)


@commands.command(epilog=examples(EXAMPLE, f"{EXAMPLE} --rate 2e4 --strain 2e-4 --resolution-nm 15 -o plan.png"))
def plan(
    energy_kev: Annotated[float, _number("KEV", "Photon energy [keV].")],
    distance_m: Annotated[float, _number("M", "Sample to detector [m].")],
    size_nm: Annotated[str, _number("D", "Crystal: one diameter, or those along beam, up and outboard, as z,y,x [nm].")],
    lattice: Annotated[str, _number("A", "Edge of the cubic cell, or a,b,c, or a,b,c,alpha,beta,gamma [Å, degrees].")],
    hkl: Annotated[str, _number("H,K,L", "Reflection, such as 1,1,1.")],
    instrument: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=proposing(instruments),
            help="Diffractometer such as id01, or circles as SAMPLE/DETECTOR, outermost first: eta:x-,phi:y-/nu:y-,delta:x-.",
        ),
    ],
    detector: Annotated[str | None, typer.Option(metavar="NAME", help="Detector.", autocompletion=proposing(detectors))] = None,
    pixel_um: Annotated[Number, _number("P", "Edge of a pixel, in place of the detector's [µm].")] = None,
    shape: Annotated[tuple[int, int] | None, typer.Option(metavar="ROWS COLUMNS", help="Shape of the detector.")] = None,
    rock: Annotated[str, typer.Option(metavar="MOTOR", help="Circle that rocks; default: one that scatters vertically.")] = "",
    step_deg: Annotated[Number, _number("S", "Rocking step; default: samples three times [degrees].")] = None,
    rate: Annotated[Number, _number("R", "Photons per second in the brightest pixel at the top of the peak.")] = None,
    flux: Annotated[Number, _number("F", "Flux density, in place of a rate [photons/µm²/s].")] = None,
    structure_factor: Annotated[Number, _number("E", "|F| of a unit cell, with a flux density [electrons].")] = None,
    attenuation: Annotated[Number, _number("M", "Mass attenuation coefficient, for the dose [cm²/g].")] = None,
    strain: Annotated[float, _number("S", "Wanted one sigma of the strain.")] = 1e-4,
    resolution_nm: Annotated[Number, _number("V", "Wanted voxel; default: a fifteenth of the crystal [nm].")] = None,
    source_um: Annotated[Number, _number("W", "Full width of the source; default: 50 [µm].")] = None,
    source_distance_m: Annotated[Number, _number("M", "Source to sample; default: 50 [m].")] = None,
    bandwidth: Annotated[Number, _number("B", "Relative bandwidth; default: 1.4e-4, Si (111).")] = None,
    arm_limit_deg: Annotated[float, _number("A", "Largest angle of the detector's arm [degrees].")] = 180.0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Slide to write, .png, with the expected pattern.")] = None,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, last.")] = False,
) -> None:
    """Plan a measurement: angles, sampling, coherence, exposure and frames for the strain that is wanted, dose, and the pattern."""
    from braggshot import plan as planning
    from braggshot.physics.geometry import KEV

    if output is not None:
        _refuse_picture(output, force)
    frame, pitch = _detector_of(detector, shape, pixel_um)
    name, circles = _circles_of(instrument)
    made = planning.make_plan(
        planning.Wish(
            energy=energy_kev * KEV, distance=distance_m, pixel_size=pitch, shape=frame, size=_size_of(size_nm),
            lattice=_lattice_of(lattice), reflection=tuple(parse_hkl(hkl)), instrument=name, circles=circles, rock=rock,  # type: ignore[arg-type]
            step=_scaled(step_deg, math.pi / 180), rate=rate, flux=_scaled(flux, 1e12), structure_factor=structure_factor,
            attenuation=_scaled(attenuation, 0.1), strain=strain, resolution=_scaled(resolution_nm, 1e-9),
            source=_scaled(source_um, 1e-6), source_distance=source_distance_m, bandwidth=bandwidth,
            arm_limit=math.radians(arm_limit_deg),
        )
    )  # fmt: skip
    facts = list(describe(made))
    if not as_json:
        say("\n".join(f"{fact:20} {value}" for fact, value in facts))
        say("".join(f"\n- {sentence}" for sentence in made.advice))
    if output is not None:
        _write_slide(output, made, facts)
    if as_json:
        say(json.dumps(as_record(made)))


def describe(made: Plan) -> Iterator[tuple[str, str]]:
    """Return the facts of a plan, in words, a name and a value each."""
    from braggshot.plan import LOW

    wish, light = made.wish, made.exposure
    yield "reflection", f"d = {made.spacing * 1e10:.4f} Å, Bragg angle {math.degrees(made.bragg_angle):.4f}°"
    yield "circles", ", ".join(f"{name} {angle:.4f}°" for name, angle in made.motors.items()) + ", the others at their zeros"
    if made.offset is not None:
        yield "detector", f"its middle {made.offset[1] * 1e3:.4g} mm off the beam along {made.offset[0]}"
    yield "oversampling", "rocking {:.2f}, rows {:.2f}, columns {:.2f}".format(*made.oversampling)
    low, high = (math.degrees(step) for step in made.step_range)
    yield "rocking step", f"{math.degrees(made.step):.4g}°; {low:.2g} to {high:.2g}° sample 3 to 4 times"
    near, far = made.distance_range
    yield "distance", f"{wish.distance:g} m; {near:.2g} to {far:.2g} m sample 3 to 4 times"
    yield "binning", "{}, {}, {}".format(*made.binning) + f" keeps {LOW:g}" if max(made.binning) > 1 else "none"
    span = math.degrees(made.step * made.window[0])
    yield "voxel", "{:.3g} nm: {} frames, {} rows, {} columns".format(made.resolution * 1e9, *made.window)
    yield "rocking range", f"{span:.3g}°; the peak is {math.degrees(made.rocking_width):.2g}° wide (FWHM, size alone)"
    source = "given" if wish.source and wish.source_distance else "typical source"
    yield "coherence across", f"{made.transverse * 1e6:.3g} µm ({source}), crystal {max(wish.size) * 1e6:.3g} µm"
    band = "given" if wish.bandwidth else "typical bandwidth"
    yield "coherence along", f"{made.longitudinal * 1e6:.3g} µm ({band}), paths differ by {made.path * 1e6:.3g} µm"
    yield (
        "strain, one sigma",
        ", ".join(f"{sigma:.1e}" for sigma in light.strain_at.values()) + " for 1e3, 1e4, 1e5, 1e6 photons",
    )
    needed, judged = _grouped(light.strain_peak), _grouped(light.peak)
    yield "photons at the peak", f"{needed} for a strain of {wish.strain:.1e}; {judged} with a good verdict"
    if light.rate is not None and light.frame is not None:
        frames = f"{light.frame:.2g} s a frame, {made.window[0]} frames: {light.seconds:.3g} s"
        yield "exposure", f"{frames}; {_grouped(light.rate)} photons/s at the peak"
    if light.dose is not None:
        yield "dose", f"{light.dose:.2g} Gy absorbed"


def as_record(made: Plan) -> dict[str, Any]:
    """Return a plan as one table for JSON, in SI units and degrees; what is unknown is null."""
    light = made.exposure
    return {
        "spacing_m": made.spacing, "bragg_angle_deg": math.degrees(made.bragg_angle), "motors_deg": made.motors,
        "detector_side": made.offset and made.offset[0], "detector_offset_m": made.offset and made.offset[1],
        "oversampling": made.oversampling, "binning": made.binning,
        "step_deg": math.degrees(made.step), "step_range_deg": [math.degrees(step) for step in made.step_range],
        "distance_range_m": made.distance_range, "voxel_m": made.resolution, "frames": made.window[0], "rows": made.window[1],
        "columns": made.window[2], "rocking_width_deg": math.degrees(made.rocking_width),
        "transverse_coherence_m": made.transverse, "longitudinal_coherence_m": made.longitudinal, "path_difference_m": made.path,
        "strain_at_peak": {f"{peak:.0e}": sigma for peak, sigma in light.strain_at.items()}, "strain": made.wish.strain,
        "strain_peak_photons": light.strain_peak,
        "peak_photons": light.peak, "peak_rate": light.rate, "exposure_s": light.frame, "seconds": light.seconds,
        "dose_gray": light.dose, "advice": made.advice,
    }  # fmt: skip


def _refuse_picture(output: Path, force: bool) -> None:
    """Refuse a slide that is no PNG, or that cannot or must not be written."""
    from braggshot.errors import ConfigError
    from braggshot.io.atomic import refuse_target
    from braggshot.output import check_writable

    if output.suffix != ".png":
        raise ConfigError(f"{output}: a plan is drawn as a picture; expected a name that ends in .png.")
    check_writable(output.parent)
    refuse_target(output, force=force)


def _write_slide(output: Path, made: Plan, facts: list[tuple[str, str]]) -> None:
    """Write the slide; a crystal that is too large to be sampled has no pattern, and the advice says so."""
    import contextlib

    from braggshot.errors import ConfigError
    from braggshot.plan import simulate
    from braggshot.report.plan import write_plan_slide

    counts = None
    with contextlib.suppress(ConfigError):
        counts = simulate(made)
    name = "({} {} {})".format(*made.wish.reflection)
    size = "x".join(f"{side * 1e9:g}" for side in dict.fromkeys(made.wish.size))
    write_plan_slide(output, f"Plan: {name}, {size} nm, {made.geometry.instrument}", facts, made.advice, counts)


def _grouped(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ") if number < 1e9 else f"{number:.1e}"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _detector_of(name: str | None, shape: tuple[int, int] | None, pixel_um: float | None) -> tuple[tuple[int, int], float]:
    """Return shape and pixel size [m] of the detector that is named, or stated."""
    from braggshot.errors import ConfigError
    from braggshot.prepare.detectors import describe_detector

    if name is None and (shape is None or pixel_um is None):
        raise ConfigError("expected --detector NAME, or --shape ROWS COLUMNS and --pixel-um P.")
    known, pitch = ((1, 1), 1.0) if name is None else describe_detector(name)
    if shape is not None and min(shape) < 8:
        raise ConfigError(f"--shape: expected a detector of 8 x 8 pixels or more, found {shape[0]} x {shape[1]}.")
    return shape or known, pitch if pixel_um is None else pixel_um * 1e-6


def _size_of(text: str) -> tuple[float, float, float]:
    """Parse one diameter or three [nm]; returns metres."""
    from braggshot.errors import ConfigError

    sides = parse_numbers(text)
    if len(sides) not in {1, 3}:
        raise ConfigError(f"--size-nm expects one diameter or three, such as 300 or 200,300,400, found {text!r}.")
    z, y, x = (side * 1e-9 for side in (sides * 3)[:3])
    return z, y, x


def _lattice_of(text: str) -> Lattice:
    """Parse the unit cell [Å, degrees]."""
    from braggshot.errors import ConfigError
    from braggshot.physics.lattice import Lattice

    numbers = parse_numbers(text)
    if len(numbers) not in {1, 3, 6}:
        raise ConfigError(f"--lattice expects a, or a,b,c, or a,b,c,alpha,beta,gamma, found {text!r}.")
    a, b, c = (edge * 1e-10 for edge in (numbers * 3)[:3])
    alpha, beta, gamma = (math.radians(angle) for angle in (numbers[3:] or [90.0] * 3))
    return Lattice((a, b, c), (alpha, beta, gamma))


def _circles_of(text: str) -> tuple[str, tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]]:
    """Parse the name of an instrument, or the circles of sample and detector."""
    from braggshot.errors import ConfigError

    if "/" not in text:
        return text, ((), ())
    pairs = [[tuple(pair.strip().split(":")) for pair in side.split(",") if pair.strip()] for side in text.split("/")]
    axes = [pair[1] if len(pair) == 2 else "" for side in pairs for pair in side]
    if len(pairs) != 2 or not pairs[0] or not {"x+", "x-", "y+", "y-", "z+", "z-"}.issuperset(axes):
        raise ConfigError(f"--instrument expects a name, or circles as eta:x-,phi:y-/nu:y-,delta:x-, found {text!r}.")
    return "", (tuple(pairs[0]), tuple(pairs[1]))  # type: ignore[arg-type]
