"""Receive frames: one module or folder for each transport.

registry   find the source that a URL names; packages add theirs as entry points ``braggshot.sources``
limits     check names, sizes and types of what strangers send
decoding   decode compressed images
ledger     turn "this frame came" into messages, in order
memory     messages that a program makes itself
replay     a scan that was measured before
pva        images of an EPICS areaDetector
dectris/   the stream of a DECTRIS detector
folder/    images and HDF5 files that appear in a folder
"""
