"""Read the scans of beamlines: one module for each.

readings      turn motor readings into a geometry, or say why that is impossible
instruments   list diffractometers as tables of circles, and read a geometry that the user states
aps_34idc     read APS 34-ID-C: a SPEC file and TIFF frames
esrf_id01     read ESRF ID01: BLISS HDF5 files
petra_p10     read PETRA III P10: an Eiger master file and a .fio file
"""
