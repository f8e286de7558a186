"""The physics, as free functions on tensors: no files, no network, no state.

fourier    the one transform pair (centred, unitary), padding, cropping and their adjoints
forward    complex crystal -> diffracted intensity, with partial coherence
sampling   autocorrelation, extent of the object, oversampling
geometry   diffractometer angles -> reciprocal and direct bases
metrics    misfits, alignment up to the trivial ambiguities, agreement between starts
"""
