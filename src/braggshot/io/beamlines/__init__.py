"""Read the scans of beamlines: one module for each.

tables        read what files of text have in common: letters, numbers, rows, scan commands
values        settle what files state: which number, in which unit, and whether it can be true
readings      turn motor readings into a geometry, or say why that is impossible
place         read and write the place of a detector
instruments   list diffractometers as tables of circles, and read a geometry that the user states
views         show some of the frames, or frames with the gap between chips
timepix       place the frames of 34-ID-C on their detector
spec          read one scan of a SPEC file
fio           read a .fio file
layouts       read the scan in one group of an HDF5 file, by a table of places
aps_spec      read SPEC files of APS, and find the frames beside them
aps_34idc     read APS 34-ID-C: a SPEC file and TIFF frames
bliss         read HDF5 files of BLISS
esrf_id01     read ESRF ID01: BLISS HDF5 files
esrf_id01_spec   read ESRF ID01: SPEC files and EDF images
esrf_id27     read ESRF ID27: BLISS HDF5 files
aps_1ide      read APS 1-ID-E: a SPEC file and TIFF frames
aps_7idd      read APS 7-ID-D: a SPEC file and TIFF frames
aps_28idb     read APS 28-ID-B: a SPEC file and HDF5 frames
heps_id05     read HEPS ID05: a SPEC file and TIFF frames
petra_p10     read PETRA III P10: an Eiger master file and a .fio file
poses         place a detector by the transformations of a NeXus file
aps_20ide     read APS 20-ID-E: HDF5 files
nanomax       read NanoMAX: an HDF5 file of contrast
diamond_i16   read Diamond I16: a NeXus file of GDA
soleil        read what was scanned from the NeXus files of SOLEIL
soleil_sixs   read SOLEIL SIXS: a NeXus file, from 2019 or later
soleil_cristal   read SOLEIL CRISTAL: a NeXus file
"""
