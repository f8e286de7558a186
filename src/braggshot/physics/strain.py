r"""Turn the phase of a crystal into displacement and strain, without unwrapping; numpy, float64, SI.

.. math::
    \varphi = -q \cdot u, \quad u_q = -\frac{\varphi}{|q|}, \quad
    \varepsilon = \frac{\partial u_q}{\partial x_q} = -\frac{\hat q \cdot \nabla\varphi}{|q|}, \quad
    d = \frac{2\pi}{|q + \nabla\varphi|}

The derivative is that of the complex field: the phase changes by :math:`\arg(\rho(r + s) \rho(r - s)^*)` over the distance 2 s,
whatever the wraps. So the strain is correct also at phase wraps and around dislocations, where no phase can be unwrapped. The
step s lies along q, because differences along other directions bring in what changes across q. phi is the phase of rho, u the
displacement, u_q its component along the scattering vector q, and d the local spacing of the planes. Vectors list their
components as (z, y, x) (`braggshot.volumes`).

Sources: Hofmann et al., Phys. Rev. Materials 4, 013801 (2020), for strain near dislocations; Carnis et al., Sci. Rep. 9, 17357
(2019), for the sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.physics.iso_surface import nearby_volumes
from braggshot.volumes import BoolArray, ComplexArray, FloatArray, StrainMap

MARGIN = 4  # width of the surroundings of a crystal from which values inside it are interpolated [voxels]


def phase_differences(rho: ComplexArray, support: BoolArray) -> NDArray[np.float64]:
    """Compute the phase difference per voxel along each axis (3, z, y, x) [rad], NaN outside the support.

    Central differences inside, one-sided ones at the surface; each difference lies within +-pi. A voxel without a neighbour along
    an axis takes the difference of the nearest voxel that has one.

    Raises
    ------
    DataError : if no two voxels of the support are neighbours along an axis.
    """
    found = np.empty((3, *rho.shape))
    for axis in range(3):
        before, after = _neighbours(axis)
        both = support[before] & support[after]
        turn = np.where(both, np.angle(rho[after] * rho[before].conj()), 0.0)
        total, count = np.zeros(rho.shape), np.zeros(rho.shape)
        for side in (before, after):
            total[side] += turn
            count[side] += both
        mean = total / np.maximum(count, 1)
        found[axis] = _fill_from_nearest(np.where(count > 0, mean, np.nan), support)
    return found


def has_gradient(region: BoolArray) -> bool:
    """Tell whether the region has neighbouring voxels along every axis, so that the phase has a gradient there."""
    return all(bool((region[before] & region[after]).any()) for before, after in map(_neighbours, range(3)))


def mean_turn(rho: ComplexArray) -> NDArray[np.float64]:
    """Average the phase difference between neighbours along each axis (3,) [rad], weighted by the product of their amplitudes.

    The result is nearly the centre of mass of |F|^2, with F the transform of rho.
    """
    return np.array([np.angle(np.vdot(rho[before], rho[after])) for before, after in map(_neighbours, range(3))])


def gradient(turn: FloatArray, basis: FloatArray) -> NDArray[np.float64]:
    """Compute the phase gradient (3, ...) [rad/m] from differences per voxel (3, ...) and the voxel edges in `basis` [m]."""
    return np.asarray(np.tensordot(np.linalg.inv(basis).T, turn, axes=1))


def slope_along(rho: ComplexArray, edges: FloatArray, q: FloatArray, support: BoolArray, basis: FloatArray) -> NDArray[np.float64]:
    """Compute the derivative of the phase along q [rad/m] in the voxels of a support; NaN outside the support.

    The field is interpolated where it was measured, one measured voxel before and after each voxel of the support. A difference is
    central where both places are inside the support and one-sided where one is. A voxel with neither takes the value of the
    nearest voxel that has one.

    Parameters
    ----------
    rho, edges : measured field (z, y, x), 0 outside the crystal, and the edges of its voxels [m]
    q : scattering vector [1/m]
    support, basis : where the derivative is wanted, on a grid that may be another one, and the edges of its voxels [m]

    Raises
    ------
    DataError : if the crystal is less than two voxels wide along q.
    """
    # As long as a measured voxel is along q: an ellipsoid stands for the voxel, so a cube is equally long in all directions.
    step = q / np.linalg.norm(np.linalg.solve(edges, q))
    index, move = np.argwhere(support).T, np.linalg.solve(basis, step)[:, None]
    ends = [ndimage.map_coordinates(support.astype(np.float32), index + side * move, order=1) for side in (-1, 1)]
    middle, centre = np.array(support.shape)[:, None] // 2, np.array(rho.shape)[:, None] // 2
    points = np.linalg.solve(edges, basis) @ (index - middle) + centre
    found = np.full(support.shape, np.nan)
    found[support] = _turn_over(rho, np.linalg.solve(edges, step), points, np.stack(ends) > 0.5 - 1e-6)
    return _fill_from_nearest(found / np.linalg.norm(step), support)


def with_slope(phase_gradient: FloatArray, slope: FloatArray, q: FloatArray) -> NDArray[np.float64]:
    """Replace the component along q of a phase gradient (3, ...) [rad/m] by `slope` (...) [rad/m]."""
    unit = q / np.linalg.norm(q)
    return np.asarray(phase_gradient + np.multiply.outer(unit, slope - np.tensordot(unit, phase_gradient, axes=1)))


def strain(phase_gradient: FloatArray, q: FloatArray) -> NDArray[np.float64]:
    """Compute the strain along q [1] of a phase gradient (3, ...) [rad/m]: -q . grad(phase) / |q|^2."""
    return np.asarray(-np.tensordot(q, phase_gradient, axes=1) / (q @ q))


def d_spacing(phase_gradient: FloatArray, q: FloatArray) -> NDArray[np.float64]:
    """Compute the local spacing [m] of the planes, 2 pi / |q + grad(phase)|.

    The phase gradient (3, ...) [rad/m] is relative to the lattice whose scattering vector is q.
    """
    local = np.asarray(q).reshape(3, *[1] * (np.ndim(phase_gradient) - 1)) + phase_gradient
    return np.asarray(2 * np.pi / np.linalg.norm(local, axis=0))


def ramp(rho: ComplexArray, region: BoolArray) -> NDArray[np.float64]:
    """Find the phase ramp, per voxel along each axis (3,) [rad], whose removal leaves no mean phase gradient in `region`.

    Raises
    ------
    DataError : if no two voxels of the region are neighbours.
    """
    inside = np.where(region, rho, 0)
    first = mean_turn(inside)
    rest = phase_differences(without_ramp(inside, first), region)
    return first + np.nanmean(rest, axis=(1, 2, 3))


def without_ramp(rho: ComplexArray, turn: FloatArray) -> ComplexArray:
    """Remove a phase ramp of `turn` per voxel (3,) [rad] from a field; the phase of the voxel N // 2 stays."""
    factor: NDArray[np.complex128] = np.ones((1, 1, 1), dtype=complex)
    for axis, (size, slope) in enumerate(zip(rho.shape, turn, strict=True)):
        line = np.exp(-1j * slope * (np.arange(size) - size // 2))
        factor = factor * line.reshape([-1 if axis == other else 1 for other in range(3)])
    return rho * factor


def continue_beyond(rho: ComplexArray, support: BoolArray) -> ComplexArray:
    """Continue a field (z, y, x) beyond the surface of its support: the amplitude stays, the phase phi goes on linearly.

    A voxel v outside the support gets the amplitude of n and the phase 2 phi(n) - phi(m). Here n is the voxel of the support that
    is nearest to v, and m lies as far behind n as v lies before it: m = 2 n - v.
    """
    nearest = ndimage.distance_transform_edt(~support, return_distances=False, return_indices=True)
    last = np.array(support.shape).reshape(3, 1, 1, 1) - 1
    behind = np.clip(2 * nearest - np.indices(support.shape), 0, last)
    # The reflection of a voxel can lie outside the support; then the voxel of the support nearest to the reflection is taken.
    behind = nearest[:, *behind]
    return rho[tuple(nearest)] * np.exp(1j * np.angle(rho[tuple(nearest)] * rho[tuple(behind)].conj()))


def unwrapped(phase: FloatArray, support: BoolArray) -> NDArray[np.float64]:
    """Unwrap the phase [rad] inside the support, NaN outside; parts of the support that do not touch are unwrapped separately.

    Around a dislocation no continuous phase exists, so a jump remains. Herraez et al., Appl. Opt. 41, 7437 (2002), by scikit-image.
    """
    from skimage.restoration import unwrap_phase  # takes half a second to import

    found = np.full(phase.shape, np.nan)
    if support.any():
        box = ndimage.find_objects(support.astype(np.uint8))[0]
        masked = np.ma.masked_array(phase[box], mask=~support[box])
        found[box] = np.where(support[box], np.asarray(unwrap_phase(masked, rng=0)), np.nan)  # type: ignore[no-untyped-call]
    return found


def circulation(phase: FloatArray, region: BoolArray) -> NDArray[np.int8]:
    """Count by how many turns of 2 pi the phase changes around each face of the voxel grid, (3, z, y, x).

    Entry [a, n] belongs to the face normal to axis a whose corners are voxel n and its next neighbours on the two other axes. The
    path around the face takes these axes in cyclic order. The entry is 0 unless all four corners lie in `region`.
    """
    turns = [np.diff(phase, axis=axis) / (2 * np.pi) for axis in range(3)]
    for turn in turns:
        turn -= np.rint(turn)
    found = np.zeros((3, *phase.shape), dtype=np.int8)
    for axis in range(3):
        corners = _corners(axis)
        one, two = (axis + 1) % 3, (axis + 2) % 3
        (low_one, high_one), (low_two, high_two) = _neighbours(one), _neighbours(two)
        total = turns[one][low_two] - turns[one][high_two] + turns[two][high_one] - turns[two][low_one]
        whole = np.logical_and.reduce([region[corner] for corner in corners])
        found[axis][corners[0]] = np.rint(total) * whole
    return found


def dislocations(phase: FloatArray, region: BoolArray, least: int = 8) -> BoolArray:
    """Find the voxels at the corners of faces around which the phase circulates.

    Around the line of a dislocation the phase changes by a multiple of 2 pi. Lines through fewer than `least` faces are taken for
    noise, because a single wrong phase difference already makes a loop through four faces.
    """
    faces = circulation(phase, region) != 0
    mask = np.zeros(phase.shape, dtype=bool)
    for axis in range(3):
        corners = _corners(axis)
        for corner in corners:
            mask[corner] |= faces[axis][corners[0]]
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    length = ndimage.sum_labels(faces.sum(axis=0), labels, np.arange(1, count + 1))
    return mask & np.isin(labels, 1 + np.flatnonzero(length >= least))


def standard_deviation(
    fields: ComplexArray, support: BoolArray, basis: FloatArray | None = None, q: FloatArray | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Compute the standard deviation of phase [rad] and strain [1] over aligned fields (n, z, y, x), 0 outside the support.

    The strain is computed from each field by itself, because the phase errors of neighbouring voxels are correlated and partly
    cancel in it. The deviation of the strain is None without `basis` and `q`. Both deviations are
    sample deviations (n - 1).
    """
    box = ndimage.find_objects(support.astype(np.uint8))[0] if support.any() else (slice(0, 0),) * 3
    inside, cut = support[box], fields[:, *box]
    phase, strains = np.zeros(support.shape, np.float32), None
    phase[box][inside] = (circular_deviation(cut) * np.sqrt(len(fields) / max(1, len(fields) - 1)))[inside]
    if basis is not None and q is not None:
        strains = np.zeros(support.shape, np.float32)
        each = [-slope_along(np.where(inside, field, 0), basis, q, inside, basis) / np.linalg.norm(q) for field in cut]
        strains[box][inside] = np.std(each, axis=0, ddof=1)[inside]
    return phase, strains


def phase_deviations(fields: ComplexArray, support: BoolArray) -> NDArray[np.float32]:
    r"""Compute the deviations (n, m) of the phase of n aligned fields from their mean at the m voxels of the support [rad].

    They are divided by :math:`\sqrt{n - 1}`, so that the sum of their squares is the sample variance of the phase. The variance
    of a linear function of the phase, such as a slope on another grid, is the sum of the squares of its values for each of them.
    """
    unit = np.exp(1j * np.angle(fields[:, support]))
    return np.asarray(np.angle(unit * unit.mean(axis=0).conj()) / np.sqrt(max(1, len(fields) - 1)), dtype=np.float32)


def on_grid(values: FloatArray, support: BoolArray) -> NDArray[Any]:
    """Put values (m,) at the m voxels of a support onto its grid, 0 elsewhere."""
    found = np.zeros(support.shape, values.dtype)
    found[support] = values
    return found


def amplitude_spread(fields: ComplexArray, support: BoolArray) -> NDArray[np.float32]:
    """Compute the standard deviation (n - 1) of |rho| of n aligned fields, divided by the mean of |rho| [1]; 0 outside the support.

    The scale of an object is not measured, so each field is first brought to the same mean amplitude inside the support.
    """
    found = np.zeros(support.shape, np.float32)
    amplitude = np.abs(fields[:, support]).astype(np.float64)
    amplitude = amplitude / np.maximum(amplitude.mean(axis=1, keepdims=True), 1e-30)
    found[support] = amplitude.std(axis=0, ddof=1) / np.maximum(amplitude.mean(axis=0), 1e-30)
    return found


def circular_deviation(fields: ComplexArray) -> NDArray[np.float64]:
    r"""Compute the circular standard deviation over the first axis [rad]: :math:`\sqrt{-2 \ln R}`, R the mean vector's length."""
    # Unit vectors exp(i phase), in double precision; in single precision the length of their mean would round to 1.
    unit = np.exp(1j * np.angle(fields).astype(np.float64))
    length = np.abs(unit.mean(axis=0))
    return np.sqrt(-2 * np.log(np.clip(length, 1e-12, 1)))


def summary_table(found: StrainMap) -> dict[str, Any]:
    """Summarise a strain map in a few numbers for tables, in the SI units that their names end with; None if not known.

    ``volume_low_m3`` and ``volume_high_m3`` are the volumes inside the surfaces at amplitudes a fifth above and below the
    iso-level.

    Means and standard deviations are those of the bulk without dislocations, except where the name says surface. ``strain_sigma``
    is the median, over the bulk, of the standard deviation of a voxel's strain.
    """
    bulk, surface = found.bulk & ~found.dislocation, found.surface & ~found.dislocation

    def mean(values: FloatArray | None, where: BoolArray = bulk) -> float | None:
        chosen = np.empty(0) if values is None else values[where & np.isfinite(values)].astype(np.float64)
        return float(chosen.mean()) if chosen.size else None

    def deviation(values: FloatArray, where: BoolArray) -> float | None:
        chosen = values[where & np.isfinite(values)].astype(np.float64)
        return float(chosen.std()) if chosen.size else None

    sigma = None if found.strain_sigma is None else found.strain_sigma[bulk & np.isfinite(found.strain_sigma)]
    least, greatest = nearby_volumes(found.amplitude, found.iso_level, found.basis)
    return {
        "volume_m3": float(found.support.sum() * np.linalg.det(found.basis)),
        "volume_low_m3": least,
        "volume_high_m3": greatest,
        "d_spacing_m": float(2 * np.pi / np.linalg.norm(found.q_bragg)),
        "lattice_parameter_m": mean(found.lattice_parameter),
        "strain_mean": mean(found.strain),
        "strain_std": deviation(found.strain, bulk),
        "strain_mean_surface": mean(found.strain, surface),
        "strain_std_surface": deviation(found.strain, surface),
        "strain_sigma": float(np.median(sigma)) if sigma is not None and sigma.size else None,
        "displacement_range_m": float(np.nanmax(found.displacement) - np.nanmin(found.displacement))
        if found.support.any()
        else None,
        "dislocation_voxels": int(found.dislocation.sum()),
        "dislocation_lines": len(found.lines),
        "dislocation_length_m": sum((line.length for line in found.lines), 0.0),
        **{f"resolution_{method}_m": length for method, length in found.resolution.items()},
    }


def _turn_over(rho: ComplexArray, step: FloatArray, points: FloatArray, inside: BoolArray) -> NDArray[np.float64]:
    """Compute by how much the phase changes over a step [voxels] at points (3, n) of a field, shape (n,) [rad]; NaN if unknown.

    The complex field is interpolated by cubic splines after its mean ramp is taken off, so no phase is unwrapped, and a faint voxel
    beyond the surface counts little. `inside` (2, n) tells whether the crystal reaches to one step before and after each point.
    """
    box = _box(rho != 0, MARGIN)
    rho, points = rho[box], points - np.array([[side.start] for side in box])
    ramp = mean_turn(rho)
    flat = continue_beyond(without_ramp(rho, ramp), rho != 0)
    parts = [ndimage.spline_filter(part, order=3, mode="nearest") for part in (flat.real, flat.imag)]

    def field(at: FloatArray) -> NDArray[np.complex128]:
        real, imaginary = (ndimage.map_coordinates(part, at, order=3, mode="nearest", prefilter=False) for part in parts)
        return real + 1j * imaginary

    here, move = field(points), np.reshape(step, (3, 1))
    before = np.where(inside[0], np.angle(here * field(points - move).conj()), 0)
    after = np.where(inside[1], np.angle(field(points + move) * here.conj()), 0)
    count = inside.sum(axis=0)
    return np.where(count > 0, (before + after) / np.maximum(count, 1) + ramp @ step, np.nan)


def _fill_from_nearest(values: FloatArray, support: BoolArray) -> NDArray[np.float64]:
    """Give each voxel of the support that has no value (NaN) that of the nearest voxel that has one; NaN outside the support.

    Raises
    ------
    DataError : if no voxel has a value.
    """
    known = support & np.isfinite(values)
    if not known.any():
        raise DataError("the crystal is less than two voxels wide, so its phase has no gradient; take smaller voxels.")
    if (support & ~known).any():
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        values = values[tuple(nearest)]
    return np.where(support, values, np.nan)


def _box(support: BoolArray, margin: int) -> tuple[slice, ...]:
    """Return the box around a support and a margin [voxels], as far as the array goes."""
    boxes = ndimage.find_objects(support.astype(np.uint8))
    if not boxes:
        raise DataError("the support is empty, so there is no crystal.")
    return tuple(slice(max(0, side.start - margin), side.stop + margin) for side in boxes[0])


def _neighbours(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the indices of all voxels but the last along an axis, and the indices of their next neighbours."""
    before, after = [slice(None)] * 3, [slice(None)] * 3
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    return tuple(before), tuple(after)


def _corners(axis: int) -> list[tuple[slice, ...]]:
    """Return the indices of the four corners, in order around the face, of all voxel faces normal to an axis."""
    found = []
    for first, second in ((0, 0), (1, 0), (1, 1), (0, 1)):
        corner = [slice(None)] * 3
        for other, step in (((axis + 1) % 3, first), ((axis + 2) % 3, second)):
            corner[other] = slice(1, None) if step else slice(None, -1)
        found.append(tuple(corner))
    return found
