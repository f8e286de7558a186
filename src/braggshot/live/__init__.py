"""Phase a scan while it is being measured, and show previews of the crystal.

::

    sources --messages--> assemble (frames -> recorded scan) --> session (previews, results, events) --> viewer

config       settings of a session
messages     messages of a source: a scan begins, a frame, the scan ends, something was dropped
sources/     receive frames: one module or folder for each transport
simulator/   play a scan over those transports, with faults on request
given        use dark image, flat field and mask that the user gives by hand
assemble     build the recording and the rocking curve of the open scan from messages
mailbox      hand the newest preview request and the finished scans to the worker thread
preview      phase a scan as far as it is measured
status       hold the present state of the session, and record its events
advice       say what would make the scan better, from the frames so far
earlier      find out what earlier sessions in the same folder left
receiver     read the frames of a source in a thread of its own
session      run the live session: threads, results, events
"""
