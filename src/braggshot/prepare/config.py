"""Settings of the preparation of a raw scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from braggshot.config import Changes


@dataclass(frozen=True, repr=False)
class PrepareConfig(Changes):
    """Settings of `prepare`; the defaults suit most scans.

    Parameters
    ----------
    shape : shape of the volume (z, y, x) [voxels]; None chooses one from the reach of the fringes
    max_shape : largest shape that is chosen [voxels]
    binning : raw voxels per voxel (z, y, x); "auto" bins axes with an oversampling of six or more, so that an oversampling of
        at least three remains, and less where many photons would show what a bin averages
    centre : position of the Bragg peak: "max" is the brightest voxel of the lightly smoothed pattern, "com" the centre of mass
        around that voxel, and (z, y, x) a given index of the raw scan
    subvoxel : shift the counts by linear interpolation so that the peak lies in the middle of the centre voxel; this spoils the
        Poisson statistics, so by default the offset is only recorded
    flat, dark, monitor : whether to use the flat field, dark field and monitor of the scan
    self_flat : "auto" estimates the gain of each pixel from the scan itself, where no flat field is given and the detector is seen
        to count unevenly; "off" never does
    drift : "auto" finds how far the frames are off their rocking angles, where the crystal found by the methods "auto" and "refine"
        is not good and moved frames would explain the counts better, and brings the counts to even angles; in volumes over 80^3 it
        only says so. "on" looks also where the crystal is good, at any size, after any method; "off" never does
    detector : name of a detector whose gaps are masked; None takes the name in the scan
    bad_pixels : mask hot and dead pixels, zingers (single bright voxels), and blocks of zeros amid counts
    aliens : "auto" masks foreign peaks, "off" leaves them
    background : level subtracted from every voxel before binning [photons], "frame" for the median level of each frame, or "off"
    threshold : counts below this become 0 [photons]
    step : step of the rocking angle [rad], or of the energy [J], of the grid that frames are put on; None takes that of the scan.
        With a finer one, the planes between the frames are not measured
    straight : interpolate the counts onto a straight grid where photons lie off it, by 0.3 voxels or more in an energy scan, by one
        voxel or more in a rocking scan (a detector close up)
    """

    shape: tuple[int, int, int] | None = None
    max_shape: tuple[int, int, int] = (256, 256, 256)
    binning: Literal["auto"] | tuple[int, int, int] = "auto"
    centre: Literal["max", "com"] | tuple[int, int, int] = "max"
    subvoxel: bool = False
    flat: bool = True
    dark: bool = True
    monitor: bool = True
    self_flat: Literal["auto", "off"] = "auto"
    drift: Literal["auto", "on", "off"] = "auto"
    detector: str | None = None
    bad_pixels: bool = True
    aliens: Literal["auto", "off"] = "auto"
    background: float | Literal["off", "frame"] = "off"
    threshold: float = 0.0
    step: float | None = None
    straight: bool = True


DEFAULTS = PrepareConfig()
"""Settings of a scan about which nothing is said."""
