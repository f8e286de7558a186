"""Simulate a detector: play a scan over the transports that real detectors use.

faults        plan the faults of a scan
player        send the frames of a scan one after another, at a given rate and with faults
eiger_files   write a DECTRIS master file and its data files
folder        write images, a growing HDF5 file, or a set of DECTRIS files
pushing       push messages over a ZeroMQ socket
dectris       push a DECTRIS stream
stins         push the stream of the detectors of MAX IV
bluesky       publish the documents of Bluesky, and write the files that they name
tiled         write the runs of Bluesky into a Tiled catalogue
blissdata     publish scans as BLISS does, and save their frames
pva           serve images over PV Access
"""
