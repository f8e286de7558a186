"""Prepare a raw scan: corrected counts around the Bragg peak, on a grid that is quick to transform.

detectors   find the gaps of known detectors
direct_beam  find the direct beam, and the detector's place, in a scan of its arm
rocking     sort repeated, missing and uneven frames onto regular planes; correct the flux
inspection  look at raw frames for values that are no counts, the unit of the values, frames without beam, a mask upside down
surplus     leave out the frames behind the last measured one
clean       find hot and dead pixels, zingers, blocks that were cut out
aliens      find foreign peaks
counts      apply dark, flat, gaps and mask to the region that is read
survey      find the peak and the reach of its fringes, reading a few frames at a time
window      choose binning, lengths that transform quickly, crop and padding
straight    bring counts onto the straight grid, where frames and pixels lie on curves
config      settings
peak        read what is needed to find the peak, and mask artefacts
volume      run the whole chain, `prepare`
alignment   measure how far one pattern lies from another, and how much they differ
same_setup  refuse scans that were not measured in the same way
region      read the corrected counts of a scan about its peak
repeats     add repeats of one scan, `sum_repeats`

Intensities stay counts: they are not interpolated, smoothed, thresholded or background-subtracted unless a setting asks for it, or
they were measured far off the straight grid.
Voxels that cannot be trusted are masked. Cropping and padding put the peak on the centre voxel, N // 2 of the N voxels of an axis;
arrays are never rolled. Bins are summed, and a bin is valid if all its voxels are valid. A prepared scan keeps its grid, and so
does a small stack whose peak is near the middle.
"""

from braggshot.prepare.config import PrepareConfig
from braggshot.prepare.repeats import RepeatsConfig, sum_repeats
from braggshot.prepare.volume import prepare

__all__ = ["PrepareConfig", "RepeatsConfig", "prepare", "sum_repeats"]
