"""Predict the crystal from measured diffraction in one forward pass, by networks that are trained on diffraction alone.

augmentation       turn patterns, thin their counts and hide voxels
network            define the low-resolution network: learned steps with the modulus projection between them
autophasenn        define the published networks, for comparison
expert_iteration   refine the network's own predictions, as targets to learn from
two_scale          define the flagship: learned steps at the low and at the full resolution
resampling         bring a volume to the sampling that a network was trained on, and back
weights            read and write trained networks; find the shipped ones
losses             compute what training minimises: misfits of magnitudes, disagreement with refined predictions
checkpoints        save a training run so that it continues exactly
datasets           make batches of counts: simulated on the fly, or measured
solved_patterns    solve patterns by iterative phasing, and train on them repeatedly
predict            predict several possible objects for any volume
novelty            tell how a pattern differs from the training patterns
pipelined          predict objects batch by batch, copying one batch while another is computed
training           train a network, in a loop that can be resumed
adapt              train a network on one pattern before it predicts the crystal
"""
