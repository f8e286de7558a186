"""Phase a scan while it is being measured: frames arrive, the volume grows, the picture forms.

::

    sources --messages--> assemble (frames -> recorded scan) --> session (previews, results, events) --> viewer

messages     messages of a source: a scan begins, a frame, the scan ends, something was dropped
sources/     receive frames: one module or folder for each transport
simulator/   play a scan over those transports, with faults on request
assemble     build the recording and the rocking curve of the open scan from messages
mailbox      hand the newest preview request and finished scans to the worker
preview      phase a scan as far as it is measured
status       hold the present state of the session, and record its events
receiver     read a source in a thread of its own
session      run it all: threads, results, events
"""
