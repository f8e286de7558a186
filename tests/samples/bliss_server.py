"""A stand-in for a Redis server that holds a scan of blissdata 2.4.5: it answers as the real one did, as far as braggshot asks."""

from __future__ import annotations

import json

import h5py
import numpy as np
from played import toy_scan

from braggshot.live.sources.blissdata.documents import SEAL

COUNTS = toy_scan().frames[:]
ANGLES = np.rad2deg(toy_scan().rocking_angle)


def document(folder, unit="deg", axis="axis:eta", kind="hdf5", pattern="mpx_%04d.h5"):
    """What blissdata 2.4.5 stored for a scan, word by word, but for what the test changes."""
    lima = {"protocol_version": 1, "server_url": "srv/lima/1", "buffer_max_number": 16, "frame_per_acquisition": 12,
            "acquisition_offset": 0, "file_offset": 0, "file_format": kind, "file_path": f"{folder}/{pattern}",
            "data_path": "/entry_0000/measurement/data", "frame_per_file": 5}  # fmt: skip
    identity = {"pk": "01", "name": "ascan", "number": 12, "data_policy": "ESRF", "session": "x", "proposal": "p",
                "collection": "c", "dataset": "d", "path": None}  # fmt: skip
    numeric = {"type": "numeric", "dtype_str": "<f8", "shape": []}
    images = {"format": "lima_v1", "plugin": "lima", "dtype": "uint16", "shape": [20, 31], "lima_info": lima}
    streams = {axis: {"pk": "eta", "encoding": numeric, "info": {"unit": unit, "dtype": "float64", "shape": []}},
               "mpx:image": {"pk": "mpx", "encoding": {"type": "json"}, "info": images}}  # fmt: skip
    info = {"npoints": 12, "scan_nb": 12, "channels": {axis: {"unit": unit, "dim": 0}}, "save": True}
    return {"pk": "01", "id": identity, "info": info, "state_stream": {"pk": "state"}, "data_streams": streams}


class Recorded:
    """The answers of a server to a scan that was recorded there: entries by stream, of which some may be held back."""

    def __init__(self, folder, **facts):
        self.document, self.history = document(folder, **facts), [[b"1-0", [b"key", b"esrf:scan:old"]]]
        self.streams = {"state": [], "eta": [], "mpx": []}

    def ask(self, command, *words, most=0):
        if command == "JSON.GET":
            return json.dumps(self.document).encode() if words[0] != "esrf:scan:old" else None
        if command == "XREAD":
            fresh = [entry for entry in self.history if int(entry[0].split(b"-")[0]) > int(words[-1].split("-")[0])]
            return [[b"_SCAN_HISTORY_", fresh]] if fresh else None
        if words[0] == "_SCAN_HISTORY_":
            return self.history[-1:]
        entries = self.streams.get(words[0].split(":")[-1], [])
        if command == "XREVRANGE":
            return entries[::-1][: words[-1]]
        return [entry for entry in entries if words[1] <= int(entry[0].split(b"-")[0]) <= words[2]][: words[-1]]

    def state(self, number):
        self.streams["state"].append([b"%d-0" % len(self.streams["state"]), [b"state", b"%d" % number]])

    def position(self, first, *values):
        packed = np.array(values, "<f8").tobytes()
        self.streams["eta"].append([b"%d-1" % first, [b"payload", packed, b"len", b"%d" % len(values)]])

    def saved(self, last):
        status = json.dumps({"last_index": last, "last_index_saved": last}).encode()
        self.streams["mpx"].append([b"%d-1" % len(self.streams["mpx"]), [b"payload", status]])

    def seal(self):
        for entries in (self.streams["eta"], self.streams["mpx"]):
            entries.append([b"%d-%d" % (SEAL, SEAL), [b"id", b"12"]])


def write_files(folder):
    for number, first in enumerate(range(0, 12, 5)):
        with h5py.File(folder / f"mpx_{number:04d}.h5", "w") as file:
            file["entry_0000/measurement/data"] = COUNTS[first : first + 5]


def encode(answer):
    """Encode an answer as Redis does."""
    if answer is None:
        return b"$-1\r\n"
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, list):
        return b"*%d\r\n" % len(answer) + b"".join(map(encode, answer))
    return b"$%d\r\n%s\r\n" % (len(answer), answer)


def add_whole_scan(server):
    """Add a scan that is whole."""
    server.history.append([b"2-0", [b"key", b"esrf:scan:new"]])
    for state in range(5):
        server.state(state)
    server.position(0, *ANGLES[:7])
    server.position(7, *ANGLES[7:])
    server.saved(11)
    server.seal()
    server.document["info"]["end_reason"] = "SUCCESS"
