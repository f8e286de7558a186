"""Reconstruction to StrainMap: `resample` brings the crystal onto orthogonal axes, `strain_map` makes material of its phase."""

from __future__ import annotations

from braggshot.crystal_frame.resample import to_crystal, to_lab
from braggshot.crystal_frame.strain_map import StrainConfig, strain_map
from braggshot.physics.strain import numbers

__all__ = ["StrainConfig", "numbers", "strain_map", "to_crystal", "to_lab"]
