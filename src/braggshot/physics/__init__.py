"""Compute the physics by functions of arrays: no files, no network, no state.

fourier          the one transform pair (centred, unitary), padding, cropping and their adjoints
forward          complex crystal to diffracted intensity, with partial coherence
autocorrelation  where the autocorrelation of the object ends, and how voxels without counts are filled
sampling         extent of a crystal whatever its strain, and the oversampling of the pattern
uneven_frames    how far frames are off their places, fitted together with the crystal
frame_search     the window in which an object was phased, and along which axes it is mirrored
geometry         diffractometer angles to reciprocal and direct bases
gain             gain of each detector pixel, from a scan and a model of its intensities
arm_scan         where a detector is, from a scan of its arm through the direct beam
lattice          spacings, plane normals and cells of any crystal system
iso_surface      the amplitude at which a crystal ends
surface          the surface of a crystal as triangles
strain           phase to displacement, strain and lattice spacing
lines            lines around which the phase turns, such as dislocations
exposure         photons, error of the strain, coherence and dose, before a scan
unmeasured       how much of a crystal voxels without counts leave open
plausibility     values that cannot be true, and the unit that was meant
metrics          misfits, alignment up to the trivial ambiguities, agreement between starts
resolution       resolution of a reconstruction [m]
loops            compile loops over the voxels of an array
scores           how near a reconstruction comes to a known crystal
"""
