"""Choose the ranges of colours that all scans of a series share; count amplitudes; measure between two points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.report.figures import Colours, phase_colours
from braggshot.report.solid import Solid
from braggshot.report.strain_figures import symmetric

Rows = Sequence[Mapping[str, Any]]


def use_series_colours(shown: Solid, rows: Rows) -> Solid:
    """Return the crystal with the colour ranges that all scans of its series share."""
    common = {name: colours for name, colours in series_colours(rows).items() if name in shown.fields}
    return replace(shown, colours={**shown.colours, **common}) if "strain" in shown.fields else shown


def series_colours(rows: Rows) -> dict[str, Colours]:
    """Return colour ranges that all scans of a series share.

    The colours of the strain reach, on both sides of zero, to twice the largest standard deviation in any scan. Those of the
    displacement reach to half of the largest range in any scan, and those of the phase follow from the displacement.
    """
    kept = [row for row in rows if row.get("verdict") != "failed"]

    def largest(column: str) -> float | None:
        """Return the largest value in a column of the table."""
        values = [row[column] for row in kept if isinstance(row.get(column), int | float) and np.isfinite(row[column])]
        return max(values) if values and max(values) > 0 else None

    colours: dict[str, Colours] = {}
    strain, displacement, spacing = (largest(name) for name in ("strain_std", "displacement_range_m", "d_spacing_m"))
    if len(kept) > 1 and strain is not None:
        colours["strain"] = symmetric(np.array([2 * strain]), "")
    if len(kept) > 1 and displacement is not None:
        colours["displacement"] = symmetric(np.array([displacement / 2 * 1e12]), "pm")
        if spacing is not None:
            colours["phase"] = phase_colours(np.exp(1j * np.array([min(np.pi, np.pi / spacing * displacement)])))
    return colours


def in_one_box(one: Solid, two: Solid) -> tuple[Solid, Solid]:
    """Return two crystals with a box that holds both, so that they are drawn and cut at the same places and in the same size."""
    if one.unit != two.unit:
        return one, two
    low, high = np.minimum(one.low, two.low), np.maximum(one.high, two.high)
    return replace(one, low=low, high=high), replace(two, low=low, high=high)


def height_histogram(shown: Solid) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Count the voxels of a crystal by their amplitude relative to the median, which is what the iso-surface is a level of.

    Returns
    -------
    Amplitudes in the middle of each bin [1], and the number of voxels in each. Voxels below 5 % are outside, and left out.
    """
    number, edges = np.histogram(shown.height, bins=60, range=(0.05, 1.55))
    return (edges[1:] + edges[:-1]) / 2, number


def labels(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Return a name for each scan by which it can be told from the others: with its folder where a name stands twice."""
    return [f"{folder}/{name}" if names.count(name) > 1 else name for name, folder in zip(names, folders, strict=True)]
