"""A scan while it is being measured: frames arrive, the volume grows, the picture forms.

::

    source (folder, PVA, ZMQ, replay, memory) --messages--> assemble (frames -> growing scan)
        --> session (pictures, results, events)

``messages`` what a source says, ``sources`` which sources there are, one file per transport, ``assemble`` the growing scan,
``session`` threads and mailboxes, ``emit`` the simulator that plays a scan over any transport with faults on request.
"""
