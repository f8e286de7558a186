"""Join several reflections of one crystal: displacement vector, strain tensor, their sigma and a verdict.

orientation   index the reflections and orient the crystal
linear        apply a sparse matrix in torch
combine       bring single crystals onto one grid; their twins, shifts and shared displacement
burgers       find dislocations and their Burgers vectors
joint         fit one density and one displacement to the counts of all reflections
tensor        compute strains and rotations of a displacement
check         predict each reflection from the others; sigma and verdict
record        hold the result, and turn it to other axes
settings      define the settings
files         write CXI, VTI, slide and numbers
run           phase, orient, join and check
"""

from __future__ import annotations

from braggshot.reflections.files import write
from braggshot.reflections.record import Tensor
from braggshot.reflections.run import join_reflections
from braggshot.reflections.settings import TensorConfig, TensorSettings, resolve

__all__ = ["Tensor", "TensorConfig", "TensorSettings", "join_reflections", "resolve", "write"]
