"""Read and write counts in files of no particular instrument.

numbered   find the frames among the images of a folder by the numbers in their names
cxi        counts as PyNX lays them out, with mask; result files too
nexus      any HDF5 file, by the path of a data set
stacks     .npy, .npz, .mat, TIFF, a folder or pattern of images
images     EDF, CBF and other detector images, by fabio
patterns   many patterns of one shape in one file, for batch prediction
recorded   the folder that braggshot records while a scan is measured
"""
