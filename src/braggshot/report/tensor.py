"""Draw the slide of a tensor: the six strains on a plane through the crystal, on one scale, with the verdict and the numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from braggshot.io.atomic import replacing
from braggshot.volumes import FloatArray

_LETTERS = 118  # of a line of text


def draw_tensor(path: Path, strains: Mapping[str, FloatArray], voxel: float, lines: Sequence[str]) -> None:
    """Draw strains (z, y, x) on the plane of x and y through the middle of the crystal, and on that of x and z below.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    known = np.concatenate([values[np.isfinite(values)] for values in strains.values()])
    top = 1e4 * float(np.percentile(np.abs(known), 99)) if known.size else 1.0
    inside = np.any([np.isfinite(values) for values in strains.values()], axis=0)
    middle = np.round(np.argwhere(inside).mean(axis=0)).astype(int) if inside.any() else np.array(inside.shape) // 2
    box = [(max(0, int(at.min()) - 1), int(at.max()) + 2) for at in np.nonzero(inside)] if inside.any() else None
    (z0, z1), (y0, y1), (x0, x1) = box or [(0, n) for n in inside.shape]
    figure = Figure(figsize=(13.33, 7.5), dpi=120, facecolor="white", layout="constrained")
    above, below = np.ravel(figure.subfigures(2, 1, height_ratios=[5.2, 2.3], squeeze=False))
    axes = above.subplots(2, 6, squeeze=False)
    image = None
    for column, (name, values) in enumerate(strains.items()):
        planes = (values[middle[0], y0:y1, x0:x1], values[z0:z1, middle[1], x0:x1])
        for row, (plane, sides) in enumerate(zip(planes, ("xy", "xz"), strict=True)):
            at = axes[row, column]
            height, width = (1e9 * voxel * n for n in plane.shape)
            image = at.imshow(1e4 * plane, cmap="RdBu_r", vmin=-top, vmax=top, origin="lower", extent=(0, width, 0, height))
            at.set_facecolor("#e6e6e6")
            at.set_title(f"{name.removeprefix('strain_')}, plane {sides}", fontsize=10)
            at.tick_params(labelsize=7)
            if not np.isfinite(values).any():
                at.text(0.5, 0.5, "not measured", transform=at.transAxes, ha="center", va="center", fontsize=9)
    axes[0, 0].set_ylabel("y [nm]", fontsize=8)
    axes[1, 0].set_ylabel("z [nm]", fontsize=8)
    for at in axes[1]:
        at.set_xlabel("x [nm]", fontsize=8)
    if image is not None:
        above.colorbar(image, ax=axes, shrink=0.8, label="strain [10⁻⁴]")
    text = [part for line in lines for part in textwrap.wrap(line, _LETTERS, subsequent_indent="   ")]
    below.text(0.02, 0.97, "\n".join(text[:12]), fontsize=10, va="top", family="DejaVu Sans")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": "braggshot"})
