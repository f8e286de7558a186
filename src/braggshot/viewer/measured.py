"""Prepare the measured data for the page, as arrays: diffraction beside its fit, rocking curve, misfit over time, the series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.report import series as report
from braggshot.report.figures import Colours, fitted_magnitude
from braggshot.series.table import MEASURED, TEXT
from braggshot.snapshot import PreviewRecord, Snapshot
from braggshot.volumes import FloatArray, Reconstruction

_MAX_PIXELS = 128  # longest side of a central plane of the diffraction after binning [pixels]
_MAX_FRAMES = 2_000  # largest number of frames in the plot of a rocking curve; later frames are left out
_MAX_PREVIEWS = 400  # largest number of previews in the curve of misfit over time; older previews are left out
QUANTITIES: Mapping[str, tuple[str, float, Mapping[str, str], str | None]] = {
    "strain": ("strain of the mean lattice", 1.0, {"strain_mean": ""}, "strain_std"),
    **{name.partition(" [")[0]: (name, scale, named, None) for name, scale, named in report.PANELS},
}
"""Quantity along a series -> axis label, factor from SI units, {table column: name of its curve}, table column of error bars."""


@dataclass(frozen=True)
class Pattern:
    """Central planes of the measured counts, NaN where a pixel is not valid, and of the fitted counts.

    Parameters
    ----------
    titles : names of the axes of each plane, (down, across)
    measured, fitted : planes (row, column), float32 [photons]; `fitted` is empty if there is no crystal
    low, high : counts at the ends of the colour range [photons]
    """

    titles: tuple[tuple[str, str], ...]
    measured: tuple[NDArray[np.float32], ...]
    fitted: tuple[NDArray[np.float32], ...]
    low: float
    high: float

    @property
    def colours(self) -> Colours:
        """Colours of the counts, the same as in the report."""
        return Colours("inferno", self.low, self.high, "photons", logarithmic=True)


@dataclass(frozen=True)
class Rocking:
    """The rocking curve: counts of every frame in the order of the scan, NaN for missing frames.

    Parameters
    ----------
    counts : (n,) sum of the counts of each frame [counts]
    is_over : False while frames may still come
    angles : (n,) rocking angle of each frame [rad]; None where it is not known
    motor : name of the motor that turned the sample
    """

    counts: FloatArray
    is_over: bool
    angles: FloatArray | None = None
    motor: str = ""

    @property
    def received(self) -> int:
        """Number of frames that have come."""
        return int(np.isfinite(self.counts).sum())


@dataclass(frozen=True)
class SeriesCurve:
    """A quantity along a series.

    Parameters
    ----------
    x, label : position of each scan along the series, and the label of the horizontal axis
    curves : name of a curve -> (n,) values in the units of `quantity`, NaN where not known
    bars : (n,) half lengths of error bars, or None
    verdicts, names : verdict and name of each scan
    quantity : label of the vertical axis
    """

    x: FloatArray
    label: str
    curves: Mapping[str, FloatArray]
    bars: FloatArray | None
    verdicts: tuple[str, ...]
    names: tuple[str, ...]
    quantity: str


def pattern(result: Reconstruction) -> Pattern | None:
    """Prepare the central planes of measured and fitted counts; None for a result that holds no measured counts."""
    volume = result.volume
    positive = volume.intensity[volume.valid & (volume.intensity > 0)]
    if not positive.size:
        return None
    names = ("rocking", "row", "column")
    chosen = [(0, 1, 2), (1, 0, 2), (2, 0, 1)]  # array axes for each plane: normal to it, down, across
    magnitude = fitted_magnitude(result)
    counts = np.where(volume.valid, volume.intensity, np.nan)
    highest = float(positive.max())
    return Pattern(
        titles=tuple((names[down], names[across]) for _, down, across in chosen),
        measured=tuple(central_plane(counts, normal) for normal, _, _ in chosen),
        fitted=() if magnitude is None else tuple(central_plane(magnitude**2, normal) for normal, _, _ in chosen),
        low=max(float(np.percentile(positive, 1)) / 2, highest * 1e-7),
        high=highest,
    )


def central_plane(values: FloatArray, normal: int) -> NDArray[np.float32]:
    """Return the plane of an array at index N // 2 of the axis `normal`, which has N voxels; a large plane is binned."""
    plane = np.take(values, values.shape[normal] // 2, axis=normal).astype(np.float32)
    bins = [-(-n // _MAX_PIXELS) for n in plane.shape]
    if bins == [1, 1]:
        return plane
    padded = np.pad(plane, [(0, -n % b) for n, b in zip(plane.shape, bins, strict=True)], constant_values=np.nan)
    blocks = padded.reshape(padded.shape[0] // bins[0], bins[0], padded.shape[1] // bins[1], bins[1])
    known = np.isfinite(blocks)
    total, number = np.where(known, blocks, 0).sum(axis=(1, 3)), known.sum(axis=(1, 3))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(np.float32)


def rocking(snapshot: Snapshot, result: Reconstruction | None, is_current: bool) -> Rocking:
    """Return the rocking curve of the scan that is shown: from its frames as they came, or else from its prepared volume."""
    if is_current and snapshot.rocking.size:
        counts = np.asarray(snapshot.rocking, dtype=np.float64)
        planned = snapshot.expected or 0
        counts = np.concatenate([counts, np.full(max(0, planned - counts.size), np.nan)])[:_MAX_FRAMES]
        return Rocking(counts, snapshot.state not in {"waiting", "measuring"}, *_rocked(result, counts.size, whole_scan=True))
    if result is None:
        return Rocking(np.zeros(0), snapshot.state not in {"waiting", "measuring"})
    has_counts = result.volume.valid.any(axis=(1, 2))
    total = result.volume.intensity.sum(axis=(1, 2), dtype=np.float64)
    counts = np.where(has_counts, total, np.nan)[:_MAX_FRAMES]
    return Rocking(counts, True, *_rocked(result, counts.size, whole_scan=False))


def _rocked(result: Reconstruction | None, number: int, whole_scan: bool) -> tuple[FloatArray | None, str]:
    """Return the rocking angle of each frame of the scan, or of each plane of the prepared volume, and the name of its motor.

    A plane beyond the scan, which is padding, gets the angle that the steps of the scan lead to.
    """
    geometry = None if result is None else result.volume.geometry
    turned = [] if geometry is None else [circle for circle in geometry.sample if np.ndim(circle.angle)]
    if result is None or not turned:
        return None, ""
    circle = max(turned, key=lambda one: float(np.ptp(one.angle)))
    angles, name = np.asarray(circle.angle, dtype=float), circle.name or "rocking angle"
    if whole_scan:
        return (angles, name) if len(angles) == number else (None, "")
    window = result.volume.window
    if window is None or len(angles) < 2:
        return (angles, name) if len(angles) == number else (None, "")
    index = np.arange(len(angles))
    middle = window.start[0] + window.binning[0] * np.arange(number) + (window.binning[0] - 1) / 2
    beyond = np.polynomial.Polynomial.fit(index, angles, 1)(middle)
    within = (middle >= 0) & (middle <= index[-1])
    return np.where(within, np.interp(middle, index, angles), beyond), name


def latest_previews(snapshot: Snapshot) -> tuple[PreviewRecord, ...]:
    """Return the previews of the scan so far; if there are too many, only the latest ones."""
    return snapshot.previews[-_MAX_PREVIEWS:]


def series_curve(rows: Sequence[Mapping[str, Any]], wished: str, over: str | None = None) -> SeriesCurve | None:
    """Return the curve of the quantity `wished`, else of the first quantity with known values; None if no value is known.

    `over` is the column on the horizontal axis; None, or a column without numbers, takes the time or the number of the scan.
    """
    name = next((name for name in (wished, *QUANTITIES) if name in QUANTITIES and _is_known(rows, name)), None)
    if name is None:
        return None
    quantity, scale, columns, bars = QUANTITIES[name]
    x, label = report.abscissa(rows, over if over and any(isinstance(row.get(over), int | float) for row in rows) else None)

    def column(key: str) -> NDArray[np.float64]:
        """Return a column of the table as numbers; chi2 is turned into its square root."""
        cells = [row.get(key) for row in rows]
        values = scale * np.array([value if isinstance(value, int | float) else np.nan for value in cells], dtype=float)
        return np.sqrt(values) if key == "chi2" else values

    return SeriesCurve(
        x=x,
        label=label,
        curves={text: column(key) for key, text in columns.items() if any(isinstance(row.get(key), int | float) for row in rows)},
        bars=None if bars is None else column(bars),
        verdicts=tuple(str(row.get("verdict")) for row in rows),
        names=tuple(str(row.get("name") or row.get("input") or "") for row in rows),
        quantity=quantity,
    )


def _is_known(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Tell whether the table holds numbers of a quantity."""
    return any(isinstance(row.get(key), int | float) for row in rows for key in QUANTITIES[name][2])


def known_quantities(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the names in `QUANTITIES` for which the table of the series holds numbers."""
    return [name for name in QUANTITIES if _is_known(rows, name)]


def abscissae(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the columns along which the series may be drawn: those of the user, and numbers that were not measured here."""
    own = dict.fromkeys(name for row in rows for name in row if name not in {*MEASURED, *TEXT, "elapsed_s"})
    return [name for name in own if any(isinstance(row.get(name), int | float) for row in rows)]
