"""Read the scans of beamlines: one module for each.

readings      turn readings of motors into a geometry, or say why not
instruments   diffractometers as tables of circles, and a geometry that the user gives
aps_34idc     APS 34-ID-C: a SPEC file and TIFF frames
esrf_id01     ESRF ID01: BLISS HDF5 files
petra_p10     PETRA III P10: an Eiger master file and a .fio file
"""
