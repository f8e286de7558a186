"""Raw scan -> diffraction volume: corrected counts around the Bragg peak, on a grid that is quick to transform.

::

    rocking    repeated, missing and uneven frames -> regular planes, flux
    counts     dark, flat, gaps, mask -> corrected counts of any region, read when asked for     (detectors: gaps)
    survey     all frames, a few at a time -> where the peak is, how far its fringes reach
    clean      hot and dead pixels, zingers, blocks that were cut out
    aliens     foreign peaks
    window     binning, fast lengths, crop and pad about the peak
    volume     prepare(): the chain, its settings and what it records

Intensities stay counts: nothing is interpolated, smoothed, thresholded or subtracted unless asked for, and what cannot be trusted
is masked. Cropping and padding choose a window whose centre voxel N // 2 is the peak, they never roll; bins are summed, and valid
where all their voxels are. A prepared scan, and a small stack that is centred already, keep their grid.
"""

from braggshot.prepare.volume import PrepareConfig, prepare

__all__ = ["PrepareConfig", "prepare"]
