"""Hold the records that the stages of the program pass to each other; numpy only, no files, no physics.

Conventions, defined here and nowhere else:
- Arrays are C-ordered (z, y, x) = (rocking, detector row, detector column).
- Vectors and 3 x 3 bases list their Cartesian components in the same order, (z, y, x), in the CXI laboratory frame: z downstream
  along the beam, y up, x outboard. A basis holds one voxel edge per *column*: the point of index n is ``basis @ (n - N // 2)``.
- SI units: metres, 1/metre, radians, joules. |q| = 2 pi / d.
- ``valid`` is True on a trusted voxel. Files hold the opposite, a ``mask`` (0 good, 1 bad).
- ``intensity`` counts photons in reciprocal space; ``rho`` is the complex object in direct space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from braggshot.display import Described, Named
from braggshot.errors import DataError

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
ComplexArray = NDArray[np.complexfloating[Any, Any]]
CoordinateFrame = Literal["detector", "lab", "sample", "crystal"]
Verdict = Literal["good", "explained", "doubtful", "failed", "not judged"]  # see "What the verdict means" in the manual


class Frames(Protocol):
    """Detector images on disk or in memory, (n, rows, columns); indexing reads only the region asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    def __getitem__(self, region: Any, /) -> Any: ...


@dataclass(frozen=True, repr=False)
class Circle(Described):
    """A rotation by the motor `name` about an `axis`, right-handed "x+" or left-handed "x-"; an angle [rad], or one per frame."""

    axis: str
    angle: float | FloatArray
    name: str = ""


@dataclass(frozen=True, repr=False)
class Geometry(Described):
    """Positions of beam, sample and detector, by the circles of a diffractometer.

    Parameters
    ----------
    energy, distance : photon energy, or one per frame of an energy scan, in which no circle moves [J]; sample to detector [m]
    pixel_size : detector row pitch, column pitch [m]
    sample, detector : circles that carry the sample and the detector, outermost first
    direct_beam, instrument : (row, column) that the direct beam hits with all detector circles at zero; name of the beamline
    row_axis, column_axis : laboratory direction in which the row and the column index grow, all detector circles at zero
    detector_rotation, tilt_azimuth, tilt : calibrated misalignment of the detector, as xrayutilities defines it: the pixels turned
        about the beam, then tilted about an axis in their plane at `tilt_azimuth` from the columns [rad]
    """

    energy: float | FloatArray
    distance: float
    pixel_size: tuple[float, float]
    sample: tuple[Circle, ...]
    detector: tuple[Circle, ...]
    direct_beam: tuple[float, float]
    row_axis: str = "y-"
    column_axis: str = "x+"
    instrument: str = ""
    detector_rotation: float = 0.0
    tilt_azimuth: float = 0.0
    tilt: float = 0.0


@dataclass(frozen=True, repr=False)
class Frame(Described):
    """One detector image as it arrives: index in the scan, rocking angle [rad], time since the epoch [s], energy if stepped [J]."""

    index: int
    image: NDArray[Any]
    rocking_angle: float | None = None
    time: float | None = None
    energy: float | None = None


@dataclass(frozen=True, repr=False)
class Scan(Named):
    """Raw frames as the beamline wrote them, with everything the files say about them; nothing has been corrected.

    Parameters
    ----------
    frames, name : (n, rows, columns), read lazily [counts]; short name for outputs, such as "example_S0054"
    valid : (rows, columns) or (n, rows, columns); None means that the files carry no mask
    dark, flat : (rows, columns) counts per frame without beam [counts]; response to uniform light [arbitrary]
    monitor, rocking_angle : (n,) incident flux per frame [arbitrary], for normalisation; angle of each frame [rad]
    arrived : (n,) False for a frame that was planned and is not there (yet); None means that all are
    geometry, detector : None where the files hold none; a known detector ("maxipix", "eiger2m", ...), whose gaps are masked
    prepared : True where the file says that its counts are already corrected, centred and cropped
    provenance : what was read, with which options, and what the reader noticed
    """

    frames: Frames
    name: str
    valid: BoolArray | None = None
    dark: FloatArray | None = None
    flat: FloatArray | None = None
    monitor: FloatArray | None = None
    rocking_angle: FloatArray | None = None
    arrived: BoolArray | None = None
    geometry: Geometry | None = None
    detector: str | None = None
    prepared: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        shape, valid = tuple(self.frames.shape), self.valid
        if len(shape) != 3:
            raise DataError(f"{self.name}: expected a 3D scan (frames, rows, columns), found shape {shape}; it has many frames.")
        if valid is not None and valid.shape not in {shape, shape[1:]}:
            raise DataError(f"{self.name}: the mask has shape {valid.shape}, the frames {shape}; give that of one frame or of all.")


@dataclass(frozen=True)
class Window:
    """Part of the raw scan that a volume covers; voxel i of axis a sums binning[a] raw voxels from start[a] + i * binning[a] on.

    Voxels outside of ``raw_shape`` are padding and not valid. `straight`: counts were interpolated onto the straight grid.
    """

    start: tuple[int, int, int]
    binning: tuple[int, int, int]
    raw_shape: tuple[int, int, int]
    straight: bool = False


@dataclass(frozen=True, repr=False)
class DiffractionVolume(Named):
    """Corrected counts around one Bragg peak, ready to be phased.

    Parameters
    ----------
    intensity, valid : (z, y, x) [photons], 0 where not valid: gaps, hot and dead pixels, aliens, missing frames, padding
    name, window : short name for outputs, and the part of the scan that was cut out
    reciprocal_basis, q_bragg : columns are the voxel edges, None without geometry; scattering vector at N // 2 [1/m], (z, y, x)
    oversampling : array size / object extent per axis, measured from the autocorrelation
    steps, geometry, provenance : corrections in words, in their order; as in `Scan`; gain : (rows, columns), told by the scan [1]
    """

    intensity: FloatArray
    valid: BoolArray
    name: str = "volume"
    window: Window | None = None
    reciprocal_basis: FloatArray | None = None
    q_bragg: FloatArray | None = None
    oversampling: tuple[float, float, float] | None = None
    steps: tuple[str, ...] = ()
    geometry: Geometry | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    gain: FloatArray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.intensity.ndim != 3:
            raise DataError(f"{self.name}: expected a 3D volume, found shape {self.intensity.shape}.")
        if self.valid.shape != self.intensity.shape:
            raise DataError(f"{self.name}: the mask has shape {self.valid.shape}, the intensity {self.intensity.shape}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of the volume."""
        return self.intensity.shape


@dataclass(frozen=True)
class Agreement:
    """How many starts agree with the chosen start: `same` out of `others`; `others` does not include the `stuck` starts.

    Two starts agree if their complex correlation after alignment is at least `limit` [1]. A stuck start predicts the held-out
    voxels so much worse than the chosen start that its disagreement says nothing.
    """

    same: int
    others: int
    stuck: int
    limit: float


@dataclass(frozen=True, repr=False)
class Quality(Described):
    """Measures of how well a reconstruction explains its measurement; definitions in `braggshot.physics.metrics`.

    Parameters
    ----------
    chi2, r_factor : misfit of the magnitudes over valid voxels; the model contains the point spread, if one was estimated [1]
    llk, llk_free : half the Poisson deviance per voxel, over the phased and over the held-out voxels [1]
    chi2_coherent : chi2 as if the beam were fully coherent; equal to chi2 where no point spread was estimated [1]
    agreement, agreeing : aligned complex correlation of every start with the chosen one [1], and the number of starts that agree
    resolution, unseen : in direct space [m]; misfit of the held-out magnitudes beyond photon noise [1]; None if not measured
    """

    chi2: float
    r_factor: float
    llk: float
    llk_free: float
    agreement: tuple[float, ...] = ()
    resolution: float | None = None
    chi2_coherent: float | None = None
    unseen: float | None = None
    agreeing: Agreement | None = None


@dataclass(frozen=True, repr=False)
class Ensemble(Described):
    """Statistics of all starts, after alignment to the chosen one.

    Parameters
    ----------
    table : one column per name ("start", "seed", "chi2", "llk_free", "correlation", "threshold", "support_fraction", ...)
    mode_weights, mode : share of each PCA mode in the sum of |rho|^2 over all starts, largest first, summing to 1 [1]; the first
        mode (z, y, x): what all starts share, in global phase with the chosen start [sqrt(photons)]
    prtf, prtf_frequency : phase retrieval transfer function on shells [1]; their |q - q_bragg| [1/m], or over Nyquist frequency
    fsc, fsc_between : Fourier shell correlation on the same shells, None with one solution [1]; of "starts" or of "half data"
    """

    table: Mapping[str, FloatArray]
    mode_weights: FloatArray
    prtf: FloatArray
    prtf_frequency: FloatArray
    fsc: FloatArray | None = None
    fsc_between: str = "starts"
    mode: ComplexArray | None = None


@dataclass(frozen=True, repr=False)
class Uncertainty(Described):
    """Standard deviations of a reconstruction per voxel, calibrated so that the truth lies within them in 68 % of cases.

    Parameters
    ----------
    phase, strain : (z, y, x) circular, 0 outside the support [rad]; that of the strain along q, None without geometry [1]
    samples, source, amplitude : number of solutions compared; where they came from; that of |rho| over its mean, or None [1]
    deviations, slope_factor : (n, m) of the phase in the support, or None [rad]; error of its slopes over theirs in quadrature [1]
    """

    phase: FloatArray
    strain: FloatArray | None
    samples: int
    source: str
    amplitude: FloatArray | None = None
    deviations: FloatArray | None = None
    slope_factor: float = 1.0


@dataclass(frozen=True, repr=False)
class Reconstruction(Described):
    """A crystal: the complex object on its grid, with measures of how far to trust it.

    Parameters
    ----------
    rho : (z, y, x) complex64, zero outside the support, scaled so that |F[rho]|^2 is in photons [sqrt(photons)]
    support, volume : (z, y, x) True inside the crystal; the measured volume that it explains, on the same grid
    frame, basis : coordinate frame of the grid; columns are the voxel edges [m], components (z, y, x), None without geometry
    quality, ensemble : measured agreement with the data and between starts
    verdict, reasons : how far to trust it (see `Verdict`), and why, in words
    history : per-iteration curves of the chosen start ("iteration", "error", "support_fraction", ...)
    method, network : strategy and network by which the crystal was phased
    configuration, choices : every resolved setting, with versions and seed; choices of sign, twin, orientation and centring
    psf, seconds : widths and Lorentzian share of the beam's point spread, None for full coherence; time per stage [s]
    uncertainty : spread between the solutions that agree, None where fewer than two agree
    strain : displacement and strain of the material; None before they are computed, without geometry or without a crystal
    """

    rho: ComplexArray
    support: BoolArray
    volume: DiffractionVolume
    quality: Quality
    frame: CoordinateFrame = "detector"
    basis: FloatArray | None = None
    ensemble: Ensemble | None = None
    verdict: Verdict = "not judged"
    reasons: tuple[str, ...] = ()
    history: Mapping[str, FloatArray] = field(default_factory=dict)
    method: str = "iterative"
    network: str | None = None
    configuration: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    psf: Mapping[str, Any] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    uncertainty: Uncertainty | None = None
    strain: StrainMap | None = None

    def __post_init__(self) -> None:
        if self.support.shape != self.rho.shape:
            raise DataError(f"the support has shape {self.support.shape}, rho {self.rho.shape}.")


@dataclass(frozen=True, repr=False)
class Facet(Described):
    """A flat part of a crystal's surface; vectors are components (z, y, x) of the strain map's frame.

    Parameters
    ----------
    normal, centre : outward unit vector; mean position of the facet, from the origin of the strain map [m]
    area, share : area of the facet, with its part of the rounded edges [m^2]; the same over the area of the whole surface [1]
    strain, strain_std : area-weighted mean and standard deviation of the strain one voxel below the facet [1]
    hkl, off : lattice plane, None where none fits or the reflection is not known; angle between its normal and the facet's [rad]
    """

    normal: FloatArray
    area: float
    share: float
    centre: FloatArray
    strain: float
    strain_std: float
    hkl: tuple[int, int, int] | None = None
    off: float | None = None


@dataclass(frozen=True, repr=False)
class Dislocation(Described):
    """Line around which the phase turns `winding` = G . b times; `confidence` is the share of paths and starts that agree [1].

    The points (n, 3) run from the origin of the strain map [m], so directed that G . b is positive; a loop's last is its first.
    """

    points: FloatArray
    is_closed: bool
    winding: int
    confidence: float

    @property
    def length(self) -> float:
        """Length [m]."""
        return float(np.linalg.norm(np.diff(self.points, axis=0), axis=1).sum())


@dataclass(frozen=True, repr=False)
class StrainMap(Named):
    """Shape, displacement and strain of a crystal on an orthogonal grid, lengths in metres.

    Volumes are (z, y, x); displacement, strain, d_spacing, lattice_parameter and the sigmas are NaN outside the support, where
    the phase is 0. Strain and displacement are relative to the mean lattice of the bulk if the phase ramp was removed, else to the
    lattice at the centre voxel of the measurement.

    Parameters
    ----------
    amplitude, phase : |rho| [sqrt(photons)]; -q.u, wrapped to +-pi, mean of the bulk zero [rad]
    displacement, strain : u along q, phase unwrapped, mean of the bulk zero [m]; d u / d x along q, from the complex field [1]
    support, surface, bulk : True inside the iso-surface; its outermost layer of voxels; the support without this layer
    dislocation, lines : voxels at the corners of voxel faces around which the phase circulates; dislocations, longest first
    basis, q_bragg : columns are the voxel edges [m]; scattering vector of the reference lattice [1/m]; (z, y, x) of `frame`
    frame, rotation : "lab", "sample", or "crystal" with q along an axis; (3, 3), from laboratory components to those of `frame`
    iso_level, name, reflection : amplitude of the iso-surface [sqrt(photons)]; name of the volume; hkl of the peak, where known
    d_spacing, lattice_parameter : of the reflecting planes; a, the cell's shape held fixed, None without the reflection [m]
    displacement_sigma, strain_sigma : one standard deviation [m], [1]; None where it was not measured
    resolution, facets : [m] by method, see `braggshot.physics.resolution`; largest first, named where the reflection is known
    choices : choices of ramp, iso-surface, sign and frame that were made, in words
    """

    amplitude: FloatArray
    phase: FloatArray
    displacement: FloatArray
    strain: FloatArray
    d_spacing: FloatArray
    support: BoolArray
    surface: BoolArray
    bulk: BoolArray
    dislocation: BoolArray
    basis: FloatArray
    q_bragg: FloatArray
    frame: CoordinateFrame
    rotation: FloatArray
    iso_level: float
    name: str = "volume"
    reflection: tuple[int, int, int] | None = None
    lattice_parameter: FloatArray | None = None
    displacement_sigma: FloatArray | None = None
    strain_sigma: FloatArray | None = None
    resolution: Mapping[str, float] = field(default_factory=dict)
    facets: tuple[Facet, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[Dislocation, ...] = ()

    @property
    def percent(self) -> FloatArray:
        """Strain [%]."""
        return 100 * self.strain

    @property
    def extent_nm(self) -> FloatArray:
        """Lower and upper edge of the grid, one row for each of z, y and x [nm]."""
        n = np.array(self.strain.shape)
        return 1e9 * np.linalg.norm(self.basis, axis=0)[:, None] * (np.stack([-(n // 2), n - n // 2], axis=1) - 0.5)
