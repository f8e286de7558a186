"""Draw reports: a slide, an HTML page, figures for a paper, figures of a series and of an evaluation.

surface          render the surface of a crystal from any side
text             say in words, with the usual units, what the numbers of a reconstruction mean
figures          make the pictures of a reconstruction, as arrays
strain_figures   make the pictures of a strain map, as arrays
solid            prepare a crystal in space: its surface, slices and quantities, as arrays
interactive      make the figure of a crystal in space, to be turned, cut and coloured
drawing          keep the pictures of a reconstruction, drawn once and used by slide, page and figure
html_parts       lay out rows of pictures, colour bars, cards and curves as HTML
html_crystal     lay out the crystal to turn, with the scripts that draw it
strain_section   lay out the part of the HTML page about strain
html             write the HTML page: one file that needs no other
paper            write the figure for a paper
slide            write the slide: one picture, 16:9
html_cell        lay out a reconstruction as a notebook shows it
planes           draw planes through a crystal with axes and a colour bar
movie            write a movie of a series as a GIF
series           draw a series of scans: curves, crystals, movie, page
tensor           draw the slide of a tensor
plan             draw the slide of a planned measurement
evaluation       draw a comparison of phasing methods on test crystals
"""

from __future__ import annotations

from pathlib import Path

from braggshot.errors import OutputError
from braggshot.io.atomic import replacing
from braggshot.report import figures
from braggshot.report.drawing import Drawing
from braggshot.report.html import page
from braggshot.report.paper import strain_figure
from braggshot.report.slide import slide

__all__ = ["Drawing", "page", "slide", "strain_figure", "write_png", "write_report", "write_strain_figure"]


def write_report(path: str | Path, drawing: Drawing) -> None:
    """Write the report of a reconstruction, with its strain map where it has one, as one HTML file.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    text = page(drawing)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def write_png(path: str | Path, drawing: Drawing) -> None:
    """Write one picture that fits a slide: the crystal (its strain, where known), slices, diffraction patterns, verdict.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    figure = slide(drawing)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": "braggshot"}, pil_kwargs=figures.PNG)


def write_strain_figure(path: str | Path, drawing: Drawing) -> None:
    """Write the figure of the strain for a paper, as PDF or PNG according to the ending of the file's name.

    Raises
    ------
    OutputError : if the reconstruction has no strain map, or if the file cannot be written.
    """
    if drawing.material is None:
        raise OutputError(f"{path}: a figure of the strain needs a geometry, and {drawing.reconstruction.volume.name} has none.")
    figure = strain_figure(drawing.material)
    with replacing(path) as temporary:
        suffix = Path(path).suffix[1:] or "pdf"
        figure.savefig(temporary, format=suffix, metadata={"Software" if suffix == "png" else "Creator": "braggshot"})
