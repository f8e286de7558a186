"""Follow a folder while a detector writes into it.

listing          list files, and tell which ones are whole
growing_hdf5     follow an HDF5 file that grows
untrusted_hdf5   read HDF5 files of strangers within bounds
eiger_master     read what a DECTRIS master says
eiger_files      follow the data files of a DECTRIS master
source           watch the folder and pass frames on
"""
