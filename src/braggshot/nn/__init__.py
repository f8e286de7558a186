"""The learned core: from measured diffraction to the crystal in one forward pass, trained on diffraction alone.

augmentation       turn, thin and hide parts of a pattern
network            the low-resolution network: learned steps with the modulus projection between them
autophasenn        the published networks, for comparison
expert_iteration   refine the network's own outputs, to teach it
two_scale          the flagship: learned steps at the low and at the full resolution
resampling         any volume to the sampling that a network was trained on, and back
weights            trained networks as files, and the ones that are shipped
losses             what training minimises: misfits of magnitudes, agreement with refined outputs
checkpoints        save a run so that it goes on to the bit
datasets           batches of counts: simulated on the fly, or measured
solved_patterns    patterns that iterative phasing has solved, to teach from
predict            any volume in, hypotheses out
novelty            in what counts are unlike those of the training
pipelined          answer batch after batch without waiting
training           the loop: one generator, resumable
adapt              learn from one pattern before answering it
"""
