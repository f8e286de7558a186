"""Write a movie (GIF) in one range of colours and one palette, so that a colour means the same in all frames.

GIF writers choose a palette from the pixels of each frame. Such a palette gives most of its colours to the background, and the
colour bar shows bands. The fixed palette of this module holds greys, and the colour map at four brightnesses, as they occur on a
shaded surface.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from PIL import Image

from braggshot.report import figures
from braggshot.report.figures import Colours, Picture

_HOLD = 500  # time that a frame is shown [ms]
_SHADES = (1.0, 0.85, 0.7, 0.55)  # brightness of the four shades of each colour, as on a surface in full to weak light [1]
_HUES = 54  # number of colours from the colour map; four shades of each and 40 greys fill the 256 colours of a GIF


def film(path: Path, frames: Iterable[tuple[str, Sequence[Picture]]], colours: Colours) -> None:
    """Write a movie in which each frame shows a title, its pictures and the colour bar of the strain."""
    palette = _palette(colours.name)
    images = [_drawn(title, pictures, colours).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
              for title, pictures in frames]  # fmt: skip
    if images:
        images[0].save(path, format="GIF", save_all=True, append_images=images[1:], duration=_HOLD, loop=0, optimize=False)


def _palette(name: str) -> Image.Image:
    hues = mpl.colormaps[name](np.linspace(0, 1, _HUES))[:, :3]
    shaded = [shade * hues for shade in _SHADES]
    greys = np.repeat(np.linspace(0, 1, 256 - _HUES * len(_SHADES))[:, None], 3, axis=1)
    image = Image.new("P", (1, 1))
    image.putpalette(np.round(255 * np.concatenate([*shaded, greys])).astype(np.uint8).ravel().tolist())
    return image


def _drawn(title: str, pictures: Sequence[Picture], colours: Colours) -> Image.Image:
    figure = Figure(figsize=(8.4, 3.1), dpi=110, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for panel, picture in zip(figure.subplots(1, len(pictures), squeeze=False).flat, pictures, strict=True):
        _place(panel, picture)
    figure.subplots_adjust(left=0.01, right=0.86, top=0.84, bottom=0.05, wspace=0.03)
    bar = figure.add_axes((0.88, 0.12, 0.015, 0.66))
    power = int(np.floor(np.log10(colours.high)))
    norm = mpl.colors.Normalize(colours.low / 10.0**power, colours.high / 10.0**power)
    figure.colorbar(ScalarMappable(norm, colours.name), cax=bar)
    bar.set_title(f"strain [10$^{{{power}}}$]", fontsize=9, pad=8)
    figure.suptitle(title, fontsize=10, parse_math=False)
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())  # type: ignore[no-untyped-call]


def _place(axes: Axes, picture: Picture) -> None:
    """Draw a picture with its scale bar."""
    axes.imshow(picture.rgba, extent=(0, picture.width, 0, picture.height))
    bar = figures.scale_bar(picture.width)
    axes.plot([0.05 * picture.width, 0.05 * picture.width + bar], [0.04 * picture.height] * 2, color="black", linewidth=2)
    axes.text(0.05 * picture.width, 0.06 * picture.height, f"{bar:g} {picture.unit}", fontsize=7)
    axes.set_title(picture.title, fontsize=8)
    axes.axis("off")
