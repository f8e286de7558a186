"""3D images of nanocrystals, with strain, from Bragg coherent diffraction.

The program works in stages. Each arrow is a stage, with the module that does it; the words between are the data passed on::

    detector frames --io.read / live.sources--> Scan --prepare--> DiffractionVolume --phasing--> Reconstruction (detector frame)
       --crystal_frame--> StrainMap (displacement, strain) --> report | viewer | io.write (CXI, VTK)
    several reflections of one crystal --reflections--> Tensor (displacement vector, six strains, rotations)

>>> import braggshot                                  # doctest: +SKIP
>>> result = braggshot.reconstruct("scan.cxi")        # doctest: +SKIP
>>> result.verdict, result.save("scan_result.cxi")    # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braggshot.crystal_frame import strain_map
    from braggshot.crystals.sample import simulate_volume
    from braggshot.errors import BraggshotError
    from braggshot.output import Result, load_result
    from braggshot.pipeline import Settings, load, reconstruct
    from braggshot.prepare import PrepareConfig, sum_repeats
    from braggshot.reflections import join_reflections as tensor
    from braggshot.volumes import DiffractionVolume, Geometry, Reconstruction, Scan, StrainMap

_HOMES = {
    "BraggshotError": "errors:BraggshotError",
    "DiffractionVolume": "volumes:DiffractionVolume",
    "Geometry": "volumes:Geometry",
    "PrepareConfig": "prepare:PrepareConfig",
    "Reconstruction": "volumes:Reconstruction",
    "Result": "output:Result",
    "Scan": "volumes:Scan",
    "Settings": "pipeline:Settings",
    "StrainMap": "volumes:StrainMap",
    "load": "pipeline:load",
    "load_result": "output:load_result",
    "reconstruct": "pipeline:reconstruct",
    "simulate_volume": "crystals.sample:simulate_volume",
    "strain_map": "crystal_frame:strain_map",
    "sum_repeats": "prepare:sum_repeats",
    "tensor": "reflections:join_reflections",
}

__all__ = [
    "BraggshotError",
    "DiffractionVolume",
    "Geometry",
    "PrepareConfig",
    "Reconstruction",
    "Result",
    "Scan",
    "Settings",
    "StrainMap",
    "load",
    "load_result",
    "reconstruct",
    "simulate_volume",
    "strain_map",
    "sum_repeats",
    "tensor",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that ``import braggshot`` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'braggshot' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"braggshot.{module}"), attribute)
