"""Predict the crystal from measured diffraction in one forward pass, by networks that are trained on diffraction alone.

augmentation       turn patterns, thin their counts and hide voxels
network            define the low-resolution network: learned steps with the modulus projection between them
autophasenn        define the published networks, for comparison
expert_iteration   refine the network's own outputs, to teach it
two_scale          define the flagship: learned steps at the low and at the full resolution
resampling         bring a volume to the sampling that a network was trained on, and back
weights            read and write trained networks; find the shipped ones
losses             compute what training minimises: misfits of magnitudes, agreement with refined outputs
checkpoints        save a training run so that it continues exactly
datasets           make batches of counts: simulated on the fly, or measured
solved_patterns    solve patterns by iterative phasing, and teach them repeatedly
predict            predict hypotheses for any volume
novelty            tell how counts differ from those of the training
pipelined          answer batch after batch without waiting
training           train a network: one generator, resumable
adapt              train a network on one pattern before it answers
"""
