"""Iterative phasing, batched over starts.

kernels      the elementwise passes, compiled for a CPU
projections  modulus and support projections, support updates, partial coherence
algorithms   ER, HIO, RAAR, DM, ML: one step each, and the registry of steps
iterate      recipes, the loop (a generator owned by the caller), held-out voxels, starts
"""
