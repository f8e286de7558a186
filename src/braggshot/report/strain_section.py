"""Lay out the part of the HTML page about strain: surface, slices, histogram, numbers, facets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from braggshot.physics.strain import summary_table
from braggshot.report import html_parts
from braggshot.report.figures import Picture
from braggshot.report.strain_figures import Material, histogram, plane_name, slices
from braggshot.report.text import SUPERSCRIPTS, Fact, length, number, percent
from braggshot.volumes import Facet, FloatArray, StrainMap

# Name of a method of measuring the resolution -> the length that it measures, in words.
METHODS = {
    "fsc_half_data": "full period where the Fourier shell correlation of two halves of the counts falls to 1/7",
    "prtf": "full period where the PRTF falls to 1/e",
    "fsc_starts": "full period where the Fourier shell correlation of starts falls to 1/2",
    "edge": "10 to 90 % width of the amplitude across the surface",
}


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
        Fact("strain in the bulk", scientific(few["strain_std"]), "standard deviation"),
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
    if few["dislocation_voxels"]:
        listed.append(Fact("dislocations", f"{few['dislocation_voxels']} voxels", "around which the phase circulates"))
    listed += [
        Fact(f"resolution ({name.replace('_', ' ')})", length(value), METHODS[name]) for name, value in found.resolution.items()
    ]
    return tuple(listed)


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


def _facets(found: tuple[Facet, ...]) -> str:
    if not found:
        return '<p class="note">No facet stands out on the surface.</p>'
    rows = []
    for facet in found:
        name = "?" if facet.hkl is None else plane_name(facet.hkl)
        off = "" if facet.off is None else f"{np.degrees(facet.off):.1f}°"
        strain = f"{scientific(facet.strain, '+')} ± {scientific(facet.strain_std)}"
        cells = (name, f"{facet.area * 1e18:.0f}", percent(facet.share), strain, off)
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("facet", "area [nm²]", "share of the surface", "strain", "off the plane"))
    return (
        '<h3>Facets</h3><p class="note">Names belong together but are one choice among those that the symmetry allows; the strain '
        "is taken one voxel below the surface, with its spread over the facet.</p>"
        f'<div class="wide"><table class="starts"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
