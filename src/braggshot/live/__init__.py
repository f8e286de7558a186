"""Phase a scan while it is being measured: frames arrive, the volume grows, the picture forms.

::

    sources --messages--> assemble (frames -> growing scan) --> session (pictures, results, events) --> viewer

messages     what a source says
sources/     receive frames: one module or folder for each transport
simulator/   play a scan over those transports, with faults on request
assemble     build the recording and the growing scan from messages
mailbox      hand the newest picture request and finished scans to the worker
preview      phase a scan as far as it is measured
status       hold what is known now, and record what happened
receiver     read a source in a thread of its own
session      run it all: threads, results, events
"""
