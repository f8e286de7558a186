"""Watch a folder while a detector writes into it, and read new frames.

listing          list files, and tell which ones are complete
text_in_hdf5     refuse an HDF5 file whose text would hold up its reader for ever
growing_hdf5     follow an HDF5 file that grows
untrusted_hdf5   read HDF5 files of unknown origin within bounds
eiger_master     read the master file of a DECTRIS detector
eiger_files      follow the data files of a DECTRIS detector
source           watch the folder and pass frames on
"""
