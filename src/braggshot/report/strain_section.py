"""Lay out the part of the HTML page about strain: surface, slices, histogram, numbers, facets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from braggshot.physics.strain import summary_table
from braggshot.report import html_parts
from braggshot.report.figures import Picture
from braggshot.report.strain_figures import Material, histogram, plane_name, slices
from braggshot.report.text import SUPERSCRIPTS, Fact, dislocations, length, number, percent
from braggshot.volumes import Facet, FloatArray, StrainMap

# Name of a method of measuring the resolution -> the length that it measures, in words.
METHODS = {
    "fsc_half_data": "full period where the Fourier shell correlation of two halves of the counts falls to 1/7",
    "prtf": "full period where the PRTF falls to 1/e",
    "fsc_starts": "full period where the Fourier shell correlation of starts falls to 1/2",
    "edge": "10 to 90 % width of the amplitude across the surface",
}
FACET_COLUMNS = ("facet", "area [nm²]", "share of the surface", "strain", "off the plane")
FACET_NOTE = (
    "Names belong together but are one choice among those that the symmetry allows; the strain is taken one voxel below the "
    "surface, with its spread over the facet."
)
"""What the table of facets shows, and what a reader has to know about it."""


def section(shown: Material, pictures: Sequence[Picture]) -> Iterable[str]:
    """Write the HTML text of the section on strain.

    Parameters
    ----------
    shown : the strain map, ready to be drawn
    pictures : pictures of the crystal's surface from several sides; empty where there is no surface
    """
    found = shown.found
    yield "<h2>Displacement and strain along q</h2>"
    where = found.choices.get("frame", f"{found.frame} frame")
    yield (
        f'<p class="note">{where.capitalize()}. Strain is the gradient of the complex field, without unwrapping; positive where '
        "the planes are further apart. Its reference is the mean lattice of the bulk unless the ramp was kept.</p>"
    )
    if pictures:
        yield "<h3>Strain one voxel below the surface</h3>"
        yield html_parts.row(pictures, "views")
    else:
        yield '<p class="note">There is no surface to show.</p>'
    yield (
        "<h3>Strain on planes through the middle</h3>"
        + html_parts.row(slices(shown, "strain"))
        + html_parts.legend("strain", shown.strains)
    )
    yield (
        "<h3>Displacement on the same planes</h3>"
        + html_parts.row(slices(shown, "displacement"))
        + html_parts.legend("displacement", shown.displacements)
    )
    yield html_parts.facts(facts(found))
    strain, densities = histogram(shown)
    power = int(np.floor(np.log10(shown.strains.high)))
    scaled = {name: density * 10.0**power for name, density in densities.items()}
    plots = [html_parts.plot(strain / 10.0**power, scaled, f"strain [10$^{{{power}}}$]", "density")]
    if found.strain_sigma is not None:
        plots.append(_uncertainty(found))
    yield f'<div class="row plots">{"".join(plots)}</div>'
    yield _facets(found.facets)


def facts(found: StrainMap) -> tuple[Fact, ...]:
    """List the numbers that summarise a strain map, in the units that are usual for crystals."""
    few = summary_table(found)
    listed = [
        Fact("lattice spacing", f"{few['d_spacing_m'] * 1e10:.4f} Å", "of the mean lattice, from the position of the peak"),
        Fact("strain in the bulk", scientific(few["strain_std"]), "standard deviation", _strain_word(few["strain_std"])),
        Fact("strain at the surface", scientific(few["strain_std_surface"]), f"mean {scientific(few['strain_mean_surface'], '+')}"),
        Fact("volume", f"{few['volume_m3'] * 1e18:.4g} µm³", _about_volume(found, few)),
    ]
    if few["lattice_parameter_m"] is not None:
        listed.insert(1, Fact("lattice parameter", f"{few['lattice_parameter_m'] * 1e10:.4f} Å", "mean of the bulk"))
    if few["strain_sigma"] is not None:
        displacement = f"displacement {number(_median(found.displacement_sigma, found) * 1e12)} pm"
        listed.append(Fact("one sigma of a voxel", scientific(few["strain_sigma"]), f"median of the strain's; {displacement}"))
    if found.facets:
        named = [facet for facet in found.facets if facet.hkl is not None]
        note = f"{len(named)} of them named after lattice planes" if named else "too few fit planes of low index to name any"
        doubt = f"; {found.choices['facets_doubt']}" if "facets_doubt" in found.choices else ""
        listed.append(Fact("facets", str(len(found.facets)), note + doubt))
    if found.lines:
        least = min(line.confidence for line in found.lines)
        share = "all" if least > 0.995 else f"at least {percent(least)} of the"
        note = f"{share} paths around them agree; another reflection may see others"
        listed.append(Fact("dislocations", dislocations(found.lines), note))
    elif few["dislocation_voxels"]:
        note = "around which the phase circulates; no line that paths around it confirm"
        listed.append(Fact("dislocations", f"{few['dislocation_voxels']} voxels", note))
    listed += [
        Fact(f"resolution ({name.replace('_', ' ')})", length(value), METHODS[name]) for name, value in found.resolution.items()
    ]
    return tuple(listed)


def _strain_word(deviation: float | None) -> str:
    """Say how strained a crystal is, by the standard deviation of the strain in its bulk."""
    if deviation is None or not np.isfinite(deviation):
        return ""
    return "calm" if deviation < 2e-4 else "strained" if deviation < 1e-3 else "strongly strained"


def _about_volume(found: StrainMap, few: Mapping[str, Any]) -> str:
    low, high = (f"{few[name] * 1e18:.4g}" for name in ("volume_low_m3", "volume_high_m3"))
    doubt = f" ({found.choices['iso_surface_doubt']})" if "iso_surface_doubt" in found.choices else ""
    return f"inside the iso-surface{doubt}; {high} to {low} for a level a fifth lower to higher"


def _median(values: FloatArray | None, found: StrainMap) -> float:
    chosen = np.empty(0) if values is None else values[found.bulk]
    return float(np.nanmedian(chosen)) if chosen.size else np.nan


def scientific(value: float | None, sign: str = "") -> str:
    """Write a number with two digits and a power of ten."""
    if value is None or not np.isfinite(value):
        return "not known"
    mantissa, exponent = f"{value:{sign}.1e}".replace("-", "\N{MINUS SIGN}", value < 0).split("e")
    return f"{mantissa}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def _uncertainty(found: StrainMap) -> str:
    """Plot the share of the bulk voxels whose standard deviation of the strain is below a value, against that value."""
    assert found.strain_sigma is not None
    sigma = np.sort(found.strain_sigma[found.bulk & np.isfinite(found.strain_sigma)])
    share = (np.arange(sigma.size) + 1) / max(1, sigma.size)
    cut = int(0.98 * sigma.size)
    power = int(np.floor(np.log10(max(float(sigma[:cut].max(initial=0)), 1e-12))))
    label = f"one sigma of the strain [10$^{{{power}}}$]"
    return html_parts.plot(sigma[:cut] / 10.0**power, {"share": share[:cut]}, label, "share of the bulk")


def facet_rows(found: Sequence[Facet]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Write facets as rows of a table with `FACET_COLUMNS`, the largest first: those with a name, and those without one."""
    rows: tuple[list[tuple[str, ...]], list[tuple[str, ...]]] = [], []
    for facet in sorted(found, key=lambda one: -one.area):
        name = "?" if facet.hkl is None else plane_name(facet.hkl)
        off = "" if facet.off is None else f"{np.degrees(facet.off):.1f}°"
        strain = f"{scientific(facet.strain, '+')} ± {scientific(facet.strain_std)}"
        rows[facet.hkl is None].append((name, f"{facet.area * 1e18:.0f}", percent(facet.share), strain, off))
    return rows


def _facets(found: tuple[Facet, ...]) -> str:
    if not found:
        return '<p class="note">No facet stands out on the surface.</p>'
    named, nameless = facet_rows(found)
    table = html_parts.table(FACET_COLUMNS, named) if named else ""
    if nameless:
        about = f"{len(nameless)} without a name" if named else f"{len(nameless)} facets, none with a name"
        table += f"<details><summary>{about}</summary>{html_parts.table(FACET_COLUMNS, nameless)}</details>"
    return f'<h3>Facets</h3><p class="note">{FACET_NOTE}</p>{table}'
