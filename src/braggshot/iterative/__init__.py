"""Phase a pattern by iterations, from many random starts, of which a batch runs together.

kernels       the elementwise passes of an iteration, compiled for a CPU
projections   modulus and support projections, shrink-wrap, held-out voxels
coherence     estimate the point spread while phasing
algorithms    ER, HIO, RAAR, DM, ML: one step each, and the registry of steps
recipe        parse the recipe language
side_by_side  run independent generators in threads of their own
iterate       run a recipe over a batch of starts, as a generator
spacing       resample a pattern at wider spacings, and phase there what is then polished on all voxels
coarse_grid   crop a measurement to fewer voxels, and bring a crystal to another grid
"""
