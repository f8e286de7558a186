"""What a person looks at: a self-contained page and a slide, both made of the same pictures and the same words.

``surface`` renders the crystal, ``figures`` makes all pictures as arrays, ``words`` says what the numbers mean, ``html`` and
``slide`` lay them out.
"""

from __future__ import annotations

from pathlib import Path

from braggshot.io.atomic import replacing
from braggshot.report.html import page
from braggshot.report.slide import slide
from braggshot.volumes import Reconstruction

__all__ = ["write_png", "write_report"]


def write_report(path: str | Path, reconstruction: Reconstruction) -> None:
    """Write the report of a reconstruction as one HTML file.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    text = page(reconstruction)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_png(path: str | Path, reconstruction: Reconstruction) -> None:
    """Write one picture that fits a slide: the crystal, slices, diffraction, verdict.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    figure = slide(reconstruction)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
