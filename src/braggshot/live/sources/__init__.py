"""Receive frames: one module or folder for each transport.

registry   find the source that a URL names; other packages add sources as entry points ``braggshot.sources``
limits     check names, sizes and types of received data
decoding   decode compressed images
ledger     turn the frames and ends of scans that a transport reports into messages, in the right order
reconnecting  listen to a transport, and connect anew when it fails
runs       read what the documents of a Bluesky run say of its scan, and what a motor steps by its unit
pulling    pull messages from a ZeroMQ socket
http_asking   ask a server over HTTP, within bounds
redis_asking  ask a Redis server, within bounds
memory     take messages from Python code of the same process
replay     play a scan that was measured before
pva        receive images of an EPICS areaDetector
dectris/   receive the stream of a DECTRIS detector
stins      receive the stream of the detectors of MAX IV (STINS)
folder/    watch a folder for new images and HDF5 files
bluesky    receive the documents of Bluesky, and read the files that they name
tiled      read the runs of a Tiled catalogue while they are written
blissdata/   read the scans that BLISS publishes in a Redis server, and the files of Lima
"""
