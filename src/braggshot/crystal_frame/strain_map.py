"""Compute displacement, strain, lattice spacing and defects of a reconstruction, by the formulas of `braggshot.physics.strain`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.config import Changes
from braggshot.crystal_frame import facets
from braggshot.crystal_frame.corrections import remove_refraction, straighten
from braggshot.crystal_frame.dislocations import dislocations
from braggshot.crystal_frame.resample import rotation_to_sample, to_crystal, to_lab, to_sample
from braggshot.errors import ConfigError, GeometryError
from braggshot.physics import lattice, resolution, strain
from braggshot.physics.geometry import direction, rotation_onto
from braggshot.physics.iso_surface import iso_surface
from braggshot.physics.plausibility import CELL, VOXEL, explain_length
from braggshot.volumes import BoolArray, ComplexArray, Facet, FloatArray, Reconstruction, StrainMap

# Number of voxels by which the support is widened and shrunk again, to fill its small holes before dislocations are sought. The
# core of a dislocation has a low amplitude, so it can be such a hole, and would be missed if it stayed empty.
_CORE = 2
# Largest share of the surface's voxels that may lie at the rim of the support [1], where the support and not the amplitude sets the
# surface. With a larger share the surface is reported as doubtful; 0.1 to 0.3 is usual.
_TIGHT = 0.5

# Largest delta and beta of X-rays in matter that are plausible [1].
_INDEX = 1e-3
# Names of the frames whose axes are those of the laboratory or of the sample.
FRAMES = {"lab": "laboratory frame", "sample": "sample frame, all sample circles at zero"}


@dataclass(frozen=True, repr=False)
class StrainConfig(Changes):
    """Settings of the strain map.

    Parameters
    ----------
    frame : "crystal" for axes with q along `axis`; "lab" for the laboratory axes; or "sample" for the laboratory axes with all
        sample circles at zero, the same in every scan of a crystal
    axis : axis of the crystal frame along which q lies, such as "y+"
    voxel_size : edge of the voxels, or one per axis (z, y, x) [m]; None keeps the volume of the measured voxels
    curvature : correct the found crystal where pixels and angles lie on curves, half a voxel or more off a straight grid
    refraction : delta and beta of the crystal's refractive index 1 - delta + i beta, whose phase and absorption are then taken off
        by the crystal's shape [1]; None leaves them
    ramp : "remove" refers the strain to the mean lattice of the bulk; "keep" leaves the phase unchanged
    iso : amplitude of the surface as a share of the largest amplitude [1]; "auto" is half the median amplitude of the bulk
    surface : thickness of the surface layer [voxels]
    noise_samples : number of copies of the counts, each with new Poisson noise; the result is refined against each copy, and the
        spread of the refined results adds to the one-sigma uncertainty; 0 skips this, except for a good crystal that no other start
        gives, which has five copies
    facets : find facets on the surface
    half_data : phase two halves of the counts too, to measure the resolution; this takes twice as long as the phasing itself
    reflection : hkl of the peak, for the lattice parameter and the names of facets
    lattice : edges of the unit cell, one if cubic or all three [m]; empty for a cubic cell of unknown edge
    lattice_angles_deg : alpha, beta, gamma [degrees]
    """

    frame: Literal["crystal", "lab", "sample"] = "crystal"
    axis: str = "y+"
    voxel_size: float | tuple[float, float, float] | None = None
    curvature: bool = True
    refraction: tuple[float, float] | None = None
    ramp: Literal["remove", "keep"] = "remove"
    iso: float | Literal["auto"] = "auto"
    surface: int = 1
    noise_samples: int = 0
    facets: bool = True
    half_data: bool = False
    reflection: tuple[int, int, int] | None = None
    lattice: tuple[float, ...] = ()
    lattice_angles_deg: tuple[float, float, float] = (90.0, 90.0, 90.0)

    def __post_init__(self) -> None:
        if self.iso != "auto" and not 0 < self.iso < 1:
            raise ConfigError(f"strain.iso is a share between 0 and 1 or 'auto', found {self.iso}.")
        if self.refraction is not None and not (0 < self.refraction[0] < _INDEX and 0 <= self.refraction[1] < _INDEX):
            raise ConfigError(f"strain.refraction expects delta and beta, such as [3.5e-5, 3e-6], found {self.refraction}.")
        if self.surface < 1:
            raise ConfigError(f"strain.surface must be at least 1 voxel, found {self.surface}.")
        if self.noise_samples < 0 or self.noise_samples == 1:
            raise ConfigError(f"strain.noise_samples is 0 or at least 2, found {self.noise_samples}.")
        if len(self.lattice) not in {0, 1, 3}:
            raise ConfigError(f"strain.lattice expects one edge (cubic) or three [m], found {len(self.lattice)}.")
        if self.reflection is not None and not any(self.reflection):
            raise ConfigError("strain.reflection (0, 0, 0) is no reflection; give the hkl of the measured peak.")
        direction(self.axis)
        sizes = self.voxel_sizes
        lengths = [("strain.voxel_size", edge, VOXEL, "nm", 1e-9) for edge in sizes]
        lengths += [("strain.lattice", edge, CELL, "Å", 1e-10) for edge in self.lattice]
        for wrong in filter(None, (explain_length(*known) for known in lengths)):
            raise ConfigError(wrong)

    @property
    def voxel_sizes(self) -> tuple[float, ...]:
        """Edges of the voxels that the settings ask for [m]; empty if the measured ones are kept."""
        asked = self.voxel_size
        return () if asked is None else asked if isinstance(asked, tuple) else (asked,)


def unit_cell(config: StrainConfig) -> lattice.Lattice:
    """Return the unit cell of the settings; a cubic cell of unit edge if they name none."""
    a, b, c = config.lattice if len(config.lattice) == 3 else 3 * (config.lattice or (1.0,))
    alpha, beta, gamma = np.radians(config.lattice_angles_deg).tolist()
    return lattice.Lattice((a, b, c), (alpha, beta, gamma))


def strain_map(reconstruction: Reconstruction, config: StrainConfig | None = None) -> StrainMap:
    """Compute shape, displacement and strain of a crystal on an orthogonal grid.

    Parameters
    ----------
    reconstruction : crystal in the detector or the laboratory frame, with its geometry

    Raises
    ------
    GeometryError : if there is no geometry.
    DataError : if there is no crystal, or it is less than two voxels wide.
    """
    reconstruction = _corrected(reconstruction, config := config or StrainConfig())
    to_frame, rotation = _in_frame(reconstruction, config)
    basis, q = to_frame.basis, to_frame.volume.q_bragg
    assert basis is not None
    assert q is not None
    amplitude = np.abs(to_frame.rho).astype(np.float64)
    level, surface = _choose_level(amplitude, to_frame.support, config.iso)
    support = to_frame.support & (amplitude >= level)
    bulk = ndimage.binary_erosion(support, iterations=config.surface)
    core = bulk if strain.has_gradient(bulk) else support
    rho: ComplexArray = to_frame.rho.astype(np.complex128)
    defect = strain.dislocations(np.angle(rho), ndimage.binary_closing(support, iterations=_CORE))
    removed = np.zeros(3)  # phase ramp that is taken off [rad/m]
    if config.ramp == "remove":
        turn = strain.ramp(rho, core & ~defect if strain.has_gradient(core & ~defect) else core)
        rho = _zero_mean(strain.without_ramp(rho, turn), core)
        removed = strain.gradient(turn, basis)
        q = q + removed
    places = rotation @ np.asarray(reconstruction.basis), q, support, basis
    turned = strain.slope_along(_field(reconstruction), *places)
    across = strain.gradient(strain.phase_differences(rho, support), basis)
    slope = strain.with_slope(across, turned - removed @ q / np.linalg.norm(q), q)
    d_spacing, along_q = strain.d_spacing(slope, q), strain.strain(slope, q)
    return StrainMap(
        amplitude=amplitude.astype(np.float32),
        phase=np.where(support, np.angle(rho), 0).astype(np.float32),
        displacement=_displacement(rho, support, core, q),
        strain=along_q.astype(np.float32),
        d_spacing=d_spacing,
        support=support,
        surface=support & ~bulk,
        bulk=bulk,
        dislocation=defect,
        basis=basis,
        q_bragg=q,
        frame=config.frame,
        rotation=rotation,
        iso_level=level,
        name=reconstruction.volume.name,
        reflection=config.reflection,
        lattice_parameter=_lattice_parameter(d_spacing, config),
        displacement_sigma=_displacement_sigma(to_frame, support, q),
        strain_sigma=_strain_sigma(reconstruction, to_frame, places, turned),
        resolution=_resolution(reconstruction, amplitude, bulk, basis),
        facets=_name_facets(facets.facets(amplitude, support, along_q, basis), q, config) if config.facets else (),
        choices={**_choices(reconstruction, config, support), **surface},
        lines=dislocations(reconstruction, rotation),
    )


def _displacement_sigma(to_frame: Reconstruction, support: BoolArray, q: FloatArray) -> NDArray[np.float32] | None:
    spread = to_frame.uncertainty
    return None if spread is None else _mask_outside(spread.phase / np.linalg.norm(q), support)


def _strain_sigma(
    reconstruction: Reconstruction, to_frame: Reconstruction, places: tuple[FloatArray, FloatArray, BoolArray, FloatArray],
    turned: FloatArray,
) -> NDArray[np.float32] | None:  # fmt: skip
    r"""Compute one sigma of strain, :math:`f \sqrt{\sum_k (\partial \delta_k / \partial r_q)^2} / |q|`, NaN outside the crystal.

    The slopes of the phase deviations :math:`\delta_k` are taken where those of the phase are, because errors of neighbouring
    voxels partly cancel in a value between them; f is the `slope_factor` of the uncertainty. Where the deviations are not known,
    the map of sigma is interpolated.

    Parameters
    ----------
    reconstruction, to_frame : the crystal on the measured grid, and on that of the strain map
    places : further arguments of `strain.slope_along`
    turned : slope of the phase along q [rad/m]
    """
    spread, (_, q, support, _) = reconstruction.uncertainty, places
    if spread is None or spread.strain is None:
        return None
    if spread.deviations is None:
        assert to_frame.uncertainty is not None
        assert to_frame.uncertainty.strain is not None
        return _mask_outside(to_frame.uncertainty.strain, support)
    variance = np.zeros(support.shape)
    for deviation in spread.deviations:
        moved = _field(reconstruction) * np.exp(1j * strain.on_grid(deviation, reconstruction.support))
        variance += np.nan_to_num(strain.slope_along(moved, *places) - turned) ** 2
    return _mask_outside(spread.slope_factor * np.sqrt(variance) / np.linalg.norm(q), support)


def _corrected(reconstruction: Reconstruction, config: StrainConfig) -> Reconstruction:
    """Correct the crystal for the curvature of the measured grid and for refraction; its choices say what was done."""
    straight, bent = straighten(reconstruction, correct=config.curvature)
    refracted = {"refraction": "left in: delta and beta are not given"}
    if config.refraction is not None:
        straight, refracted = remove_refraction(straight, config.refraction)
    return replace(straight, choices={**straight.choices, **bent, **refracted})


def _field(reconstruction: Reconstruction) -> ComplexArray:
    return np.where(reconstruction.support, reconstruction.rho, 0)


def _choose_level(amplitude: FloatArray, support: BoolArray, iso: float | Literal["auto"]) -> tuple[float, dict[str, str]]:
    """Return the amplitude at which the crystal's surface is drawn, and notes on how it was chosen and whether to doubt it."""
    if iso != "auto":
        return iso * float(amplitude.max()), {"iso_surface": f"{iso:g} of the largest amplitude"}
    surface = iso_surface(amplitude, support)
    said = {"iso_surface": f"half of the bulk's median amplitude; the support ends at {100 * surface.cut:.0f} % of its voxels"}
    if surface.thin:
        said["iso_surface_doubt"] = "hardly a voxel is inside the crystal, so its volume is rough; take smaller voxels"
    elif surface.cut > _TIGHT:
        said["iso_surface_doubt"] = "mostly the support and not the amplitude says where the crystal ends"
    return surface.level, said


def _doubt_facets(support: BoolArray, config: StrainConfig) -> dict[str, str]:
    """Note that facets are rough, if the crystal is narrow; an empty dict otherwise."""
    width = float(2 * (3 * support.sum() / (4 * np.pi)) ** (1 / 3))  # of the ball of the same volume [voxels]
    if not config.facets or width >= facets.ROUGH:
        return {}
    return {"facets_doubt": f"rough: the crystal is {width:.0f} voxels wide, and areas of facets are right from {facets.ROUGH} on"}


def _name_facets(found: tuple[Facet, ...], q: FloatArray, config: StrainConfig) -> tuple[Facet, ...]:
    """Name the facets by their lattice planes, if the reflection is known."""
    return found if config.reflection is None else facets.indexed(found, q, config.reflection, unit_cell(config))


def _resolution(reconstruction: Reconstruction, amplitude: FloatArray, bulk: BoolArray, basis: FloatArray) -> dict[str, float]:
    """Return the resolution by every available method, the most reliable first [m]."""
    ensemble, lengths = reconstruction.ensemble, dict[str, float]()
    if ensemble is not None and ensemble.fsc is not None and ensemble.fsc_between == "half data":
        lengths["fsc_half_data"] = resolution.cutoff(ensemble.fsc, ensemble.prtf_frequency, resolution.SEVENTH)
    if reconstruction.quality.resolution is not None:
        lengths["prtf"] = reconstruction.quality.resolution
    if ensemble is not None and ensemble.fsc is not None and ensemble.fsc_between == "starts":
        lengths["fsc_starts"] = resolution.cutoff(ensemble.fsc, ensemble.prtf_frequency, resolution.HALF)
    half = 0.5 * float(np.median(amplitude[bulk])) if bulk.any() else 0.0
    edge = resolution.edge_width(amplitude, bulk, basis, half) if half else None
    if edge is not None:
        lengths["edge"] = edge
    return lengths


def _in_frame(reconstruction: Reconstruction, config: StrainConfig) -> tuple[Reconstruction, NDArray[np.float64]]:
    """Resample the crystal onto the axes that the settings name; return it, and the rotation from the laboratory to these axes."""
    q_lab = reconstruction.volume.q_bragg
    if q_lab is None:
        raise GeometryError("without geometry there is no scattering vector, so no strain; give the angles.")
    if config.frame == "lab":
        return to_lab(reconstruction, config.voxel_size), np.eye(3)
    if config.frame == "sample":
        return to_sample(reconstruction, config.voxel_size), rotation_to_sample(reconstruction.volume)
    turned = to_crystal(reconstruction, config.axis, config.voxel_size)
    return turned, rotation_onto(q_lab, direction(config.axis))


def _zero_mean(rho: ComplexArray, core: BoolArray) -> ComplexArray:
    return rho * np.exp(-1j * np.angle(rho[core].sum()))


def _displacement(rho: ComplexArray, support: BoolArray, core: BoolArray, q: FloatArray) -> NDArray[np.float64]:
    """Return the displacement -phase / |q| [m], NaN outside the crystal.

    Unwrapping may add whole turns to the phase. Whole turns are removed until the mean phase is within half a turn of 0.
    """
    phase = strain.unwrapped(np.angle(rho), support)
    phase -= 2 * np.pi * np.round(np.mean(phase[core]) / (2 * np.pi))
    return np.asarray(-phase / np.linalg.norm(q))


def _lattice_parameter(d_spacing: FloatArray, config: StrainConfig) -> NDArray[np.float64] | None:
    """Return the first edge of the unit cell in every voxel, a = a_0 d / d_0 [m], where d is the lattice spacing there.

    The unit cell of the settings has the edge a_0 and the lattice spacing d_0. One reflection measures only one spacing, so the
    ratios of the edges and the angles are those of the settings.
    """
    if config.reflection is None:
        return None
    reference = unit_cell(config)
    return np.asarray(reference.edges[0] * d_spacing / lattice.spacing(config.reflection, reference))


def _mask_outside(values: FloatArray, support: BoolArray) -> NDArray[np.float32]:
    return np.where(support, values, np.nan).astype(np.float32)


def _choices(reconstruction: Reconstruction, config: StrainConfig, support: BoolArray) -> dict[str, str]:
    ramp = "removed: zero mean gradient in the bulk, q_bragg is that of the mean lattice" if config.ramp == "remove" else "kept"
    return {
        **reconstruction.choices,
        "displacement_sign": "u = -phase / |q|; strain is positive where the planes are further apart",
        "ramp": ramp,
        "frame": f"crystal frame, q along {config.axis}" if config.frame == "crystal" else FRAMES[config.frame],
        **_doubt_facets(support, config),
    }
