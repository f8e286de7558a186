"""Keep the pictures of a reconstruction, drawn once and used by the slide, the HTML page and the figure for a paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from braggshot.report import figures, interactive, strain_figures
from braggshot.report import solid as solids
from braggshot.report.figures import Crystal, Diffraction, Picture
from braggshot.report.interactive import Figure
from braggshot.report.solid import Solid
from braggshot.report.strain_figures import Material
from braggshot.volumes import Reconstruction


@dataclass(frozen=True)
class Drawing:
    """A reconstruction and its pictures; each set of pictures is drawn when it is first used.

    Parameters
    ----------
    reconstruction : reconstruction that the pictures show
    """

    reconstruction: Reconstruction

    @cached_property
    def crystal(self) -> Crystal:
        """The crystal ready to be drawn, with the scale and the colours that all its pictures share."""
        return figures.crystal(self.reconstruction)

    @cached_property
    def views(self) -> tuple[Picture, ...]:
        """Pictures of the crystal's surface from four sides, coloured by its phase."""
        return figures.views(self.crystal)

    @cached_property
    def material(self) -> Material | None:
        """Strain map, scale and colours that all pictures of the strain share; None without a strain map."""
        return None if self.reconstruction.strain is None else strain_figures.material(self.reconstruction.strain)

    @cached_property
    def strain_views(self) -> tuple[Picture, ...]:
        """Pictures of the crystal's surface from four sides, coloured by its strain; empty without a strain map."""
        return () if self.material is None else strain_figures.views(self.material)

    @cached_property
    def solid(self) -> Solid | None:
        """The crystal in space, with all its quantities; None without a crystal."""
        return solids.solid(self.reconstruction)

    @cached_property
    def in_space(self) -> Figure | None:
        """The figure of the crystal to turn, cut and colour, in the format of plotly.js; None without a crystal."""
        return None if self.solid is None else interactive.figure(self.solid)

    @cached_property
    def diffraction(self) -> Diffraction | None:
        """Pictures of the central planes of measured and fitted counts; None for a result without its measurement."""
        return figures.diffraction(self.reconstruction)
