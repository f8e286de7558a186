"""Prepare a raw scan: corrected counts around the Bragg peak, on a grid that is quick to transform.

detectors   gaps of known detectors
rocking     repeated, missing and uneven frames to regular planes; flux
clean       hot and dead pixels, zingers, blocks that were cut out
aliens      foreign peaks
counts      dark, flat, gaps and mask to corrected counts of any region, read when asked for
survey      where the peak is and how far its fringes reach, a few frames at a time
window      binning, fast lengths, crop and pad about the peak
volume      the chain `prepare`, its settings, and what it records

Intensities stay counts: nothing is interpolated, smoothed, thresholded or subtracted unless asked for, and what cannot be trusted
is masked. Cropping and padding choose a window whose centre voxel N // 2 is the peak, they never roll; bins are summed, and valid
where all their voxels are. A prepared scan, and a small stack that is centred already, keep their grid.
"""

from braggshot.prepare.volume import PrepareConfig, prepare

__all__ = ["PrepareConfig", "prepare"]
