"""Turn a reconstruction into a strain map.

corrections    take off the curvature of the grid, refraction and absorption
resample       bring the crystal onto orthogonal axes
facets         find and name the facets of its surface
dislocations   find the lines around which the phase turns
strain_map     compute displacement, strain, lattice spacing and defects
"""

from __future__ import annotations

from braggshot.crystal_frame.resample import to_crystal, to_lab, to_sample, turn_onto
from braggshot.crystal_frame.strain_map import StrainConfig, strain_map

__all__ = ["StrainConfig", "strain_map", "to_crystal", "to_lab", "to_sample", "turn_onto"]
