"""Prepare a raw scan: corrected counts around the Bragg peak, on a grid that is quick to transform.

detectors   find the gaps of known detectors
rocking     sort repeated, missing and uneven frames onto regular planes; correct the flux
clean       find hot and dead pixels, zingers, blocks that were cut out
aliens      find foreign peaks
counts      apply dark, flat, gaps and mask to the region that is read
survey      find the peak and the reach of its fringes, reading a few frames at a time
window      choose binning, lengths that transform quickly, crop and padding
volume      run the whole chain, `prepare`, by its settings

Intensities stay counts: they are not interpolated, smoothed, thresholded or background-subtracted unless a setting asks for it.
Voxels that cannot be trusted are masked. Cropping and padding put the peak on the centre voxel, N // 2 of the N voxels of an axis;
arrays are never rolled. Bins are summed, and a bin is valid if all its voxels are valid. A prepared scan keeps its grid, and so
does a small stack whose peak is near the middle.
"""

from braggshot.prepare.volume import PrepareConfig, prepare

__all__ = ["PrepareConfig", "prepare"]
