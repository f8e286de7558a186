"""Read and write counts in files of no particular instrument.

cxi        counts as PyNX lays them out, with mask; result files too
nexus      any HDF5 file, by the path of a data set
stacks     .npy, .npz, TIFF, a folder or pattern of images
patterns   many patterns of one shape in one file, for batch prediction
recorded   the folder that braggshot records while a scan is measured
"""
