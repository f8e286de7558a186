"""What a person looks at: a self-contained page and a slide, both made of the same pictures and the same words.

``surface`` renders the crystal, ``figures`` and, for the strain, ``material`` make all pictures as arrays, ``words`` says what the
numbers mean; ``html`` (with ``fragments`` and ``strain_section``), ``slide`` and ``paper`` lay them out.
"""

from __future__ import annotations

from pathlib import Path

from braggshot.errors import OutputError
from braggshot.io.atomic import replacing
from braggshot.report.html import page
from braggshot.report.paper import strain_figure
from braggshot.report.slide import slide
from braggshot.volumes import Reconstruction, StrainMap

__all__ = ["write_png", "write_report", "write_strain_figure"]


def write_report(path: str | Path, reconstruction: Reconstruction, strain: StrainMap | None = None) -> None:
    """Write the report of a reconstruction, and of its strain map, as one HTML file.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    text = page(reconstruction, strain)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_png(path: str | Path, reconstruction: Reconstruction, strain: StrainMap | None = None) -> None:
    """Write one picture that fits a slide: the crystal (its strain, where known), slices, diffraction, verdict.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    figure = slide(reconstruction, strain)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def write_strain_figure(path: str | Path, reconstruction: Reconstruction, strain: StrainMap | None = None) -> None:
    """Write the figure for a paper, PDF or PNG by the ending.

    Raises
    ------
    OutputError : without a strain map, or if the file cannot be written.
    """
    if strain is None:
        raise OutputError(f"{path}: a figure of the strain needs a geometry, and {reconstruction.volume.name} has none.")
    figure = strain_figure(strain)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:] or "pdf")
