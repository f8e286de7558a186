"""Hold what several reflections tell of one crystal, and turn it to other axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from braggshot.display import Described
from braggshot.reflections import tensor
from braggshot.reflections.burgers import Slip
from braggshot.reflections.check import Sigma
from braggshot.reflections.joint import Crystal
from braggshot.reflections.orientation import Hkl, Orientation
from braggshot.reflections.tensor import Fields
from braggshot.volumes import FloatArray, Verdict

Axes = Literal["crystal", "sample", "plane"]
_KINDS = ("displacement", "strain", "rotation")


@dataclass(frozen=True)
class Reflection:
    """One reflection of a joint fit.

    Parameters
    ----------
    name, hkl : name of the scan; Miller indices
    q : scattering vector of the mean lattice along the axes of the tensor [1/m]
    verdict, alone : verdict on the reflection by itself, and its chi2 [1]
    twin : True if the twin of what was phased by itself is part of the tensor
    overlap : correlation of its shape with that of the first [1]
    angle : between q and that of the oriented lattice [rad]
    missed : by how much its predicted magnitudes miss beyond photon noise, see `check.Checks` [1]
    misfit : chi2 of the joint fit over its voxels; None if it was left out [1]
    """

    name: str
    hkl: Hkl
    q: FloatArray
    verdict: Verdict
    alone: float
    twin: bool
    overlap: float
    angle: float
    missed: float
    misfit: float | None = None


@dataclass(frozen=True, repr=False)
class Tensor(Described):
    """Displacement, strain and rotation of a crystal, from several of its reflections.

    Parameters
    ----------
    reflections, orientation : one row each; hkl, cell and the rotation from the crystal's axes to the sample's
    crystal, fields : the joint fit, and what its displacement means; grid and components along `axes`
    sigma : one sigma of each component; None where it was not asked for
    verdict, reasons : how far to trust it, and why, in words
    mean_strain : (6,) strain of the mean lattice against the cell, which `fields` does not hold; None for two reflections [1]
    inconsistency : share of the single crystals' phases that no common displacement explains [1]
    seconds, configuration : time of each stage [s]; every resolved setting
    axes : "crystal" (x along a*, y in the plane of a* and b*), "sample" (the laboratory's with all sample circles at zero), or
        "plane" (two reflections: x along the first q, z across both)
    dislocations : lines that any reflection sees, the longest first, with their Burgers vectors where three tell them
    """

    reflections: tuple[Reflection, ...]
    crystal: Crystal
    fields: Fields
    sigma: Sigma | None
    orientation: Orientation
    verdict: Verdict
    reasons: tuple[str, ...]
    mean_strain: FloatArray | None
    inconsistency: float
    seconds: Mapping[str, float]
    configuration: Mapping[str, Any]
    axes: Axes = "crystal"
    dislocations: tuple[Slip, ...] = ()

    @property
    def basis(self) -> NDArray[np.float64]:
        """Matrix whose columns are the voxel edges along `axes` [m]; the grid itself never turns."""
        edges = self.crystal.voxel * np.eye(3)
        return self.orientation.rotation @ edges if self.axes == "sample" else edges

    def in_plane(self) -> Tensor:
        """Set to NaN what two reflections do not measure."""
        changed: Any = {kind: tensor.known_in_plane(getattr(self.fields, kind), kind) for kind in _KINDS}
        sigma = self.sigma
        if sigma is not None:
            spread: Any = {kind: tensor.known_in_plane(getattr(sigma, kind), kind) for kind in _KINDS}
            sigma = replace(sigma, **spread)
        return replace(self, fields=replace(self.fields, **changed), sigma=sigma, axes="plane")

    def in_sample(self) -> Tensor:
        """List all components along the axes of the sample; the sigmas are turned as if their errors were independent."""
        if self.axes != "crystal":
            return self
        turn = self.orientation.rotation
        fields = replace(
            self.fields,
            displacement=np.tensordot(turn, self.fields.displacement, axes=1),
            strain=tensor.turned(self.fields.strain, turn),
            rotation=np.tensordot(turn, self.fields.rotation[::-1], axes=1)[::-1],
        )
        rows = tuple(replace(row, q=turn @ row.q) for row in self.reflections)
        mean = None if self.mean_strain is None else tensor.turned(self.mean_strain, turn)
        slips = tuple(
            replace(one, points=one.points @ turn.T, vector=None if one.vector is None else turn @ one.vector)
            for one in self.dislocations
        )
        sigma = None if self.sigma is None else _turn_sigma(self.sigma, turn)
        changed: Any = {"reflections": rows, "fields": fields, "sigma": sigma, "mean_strain": mean, "dislocations": slips}
        return replace(self, **changed, axes="sample")


def _turn_sigma(sigma: Sigma, turn: FloatArray) -> Sigma:
    squares = turn**2
    pairs: Sequence[tuple[int, int]] = [(tensor.PLACE[a], tensor.PLACE[b]) for a, b in map(tuple, tensor.SIX)]
    variance = np.zeros_like(sigma.strain)
    for row, (a, b) in enumerate(pairs):
        for column, (i, j) in enumerate(pairs):
            weight = turn[a, i] * turn[b, j] + (turn[a, j] * turn[b, i] if i != j else 0.0)
            variance[row] += weight**2 * sigma.strain[column] ** 2
    return replace(
        sigma,
        displacement=np.sqrt(np.tensordot(squares, sigma.displacement**2, axes=1)),
        strain=np.sqrt(variance),
        rotation=np.sqrt(np.tensordot(squares, sigma.rotation[::-1] ** 2, axes=1))[::-1],
    )
