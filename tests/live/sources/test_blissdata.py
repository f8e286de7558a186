from __future__ import annotations

import contextlib
import gc
import io
import json
import time
from itertools import pairwise

import numpy as np
import pytest
from bliss_server import ANGLES, COUNTS, Recorded, add_whole_scan, encode, write_files
from played import assert_equal, listen, playing, toy_scan
from redis_server import RealServer
from scipy.constants import electron_volt

from braggshot.errors import ConfigError, OutputError
from braggshot.live.messages import Arrived, Begin, Dropped, End, Trouble
from braggshot.live.simulator.faults import Faults
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources.blissdata import source
from braggshot.live.sources.blissdata.documents import Saving
from braggshot.live.sources.blissdata.source import Options, Reader
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import UnusableError
from braggshot.live.sources.redis_asking import read_answer
from braggshot.live.sources.registry import open_source


class Looking:
    def __init__(self, server, folder, **options):
        self.server, self.reader, self.ledger, self.heard = (
            server,
            Reader(Options(files=str(folder), **options)),
            Ledger(ScanDefaults()),
            [],
        )

    def look(self):
        fresh = [message for message in self.reader.look(self.server, self.ledger) if message is not None]
        self.heard += fresh
        return fresh


def whole_scan(folder, **facts):
    """A server with a scan that was whole before it was looked at, and a reader that saw the one before."""
    server = Recorded(folder, **facts)
    looking = Looking(server, folder)
    looking.look()
    write_files(folder)
    add_whole_scan(server)
    return server, looking


def test_frames_come_when_their_files_are_complete(tmp_path):
    server = Recorded(tmp_path)
    looking = Looking(server, tmp_path)
    assert looking.look() == []
    write_files(tmp_path)
    server.history.append([b"2-0", [b"key", b"esrf:scan:new"]])
    server.state(0)
    assert looking.look() == []
    server.state(1), server.state(2), server.position(0, *ANGLES[:3]), server.saved(4)
    assert looking.look() == []  # Lima may still write to the only file
    server.saved(5)
    assert len(looking.look()) == 4  # the start, and the frames whose positions are known
    server.position(3, *ANGLES[3:])
    assert len(looking.look()) == 2
    server.saved(11)
    assert len(looking.look()) == 5
    server.seal(), server.state(3), server.state(4)
    server.document["info"]["end_reason"] = "SUCCESS"
    assert [type(message) for message in looking.look()] == [Arrived, Arrived, End]
    assert looking.heard[0] == Begin("d_0012", 12, (20, 31))
    for index, message in enumerate(looking.heard[1:-1]):
        np.testing.assert_array_equal(message.frame.image, COUNTS[index])
        assert abs(message.frame.rocking_angle - np.deg2rad(ANGLES[index])) < 1e-12


def test_an_energy_scan_and_motors_that_are_no_angle(tmp_path):
    _, looking = whole_scan(tmp_path, unit="keV", axis="axis:mono")
    frames = [message.frame for message in looking.look() if isinstance(message, Arrived)]
    np.testing.assert_allclose([frame.energy for frame in frames], 1e3 * electron_volt * ANGLES)
    for facts, said in (({"unit": "mm"}, "neither an angle nor an energy"), ({"kind": "edf"}, "not saved by Lima in HDF5 files")):
        _, looking = whole_scan(tmp_path, **facts)
        (told,) = [message for message in looking.look() if isinstance(message, Trouble)]
        assert said in told.reason
        assert not [message for message in looking.heard if isinstance(message, Begin)]


def test_a_closed_scan_whose_document_tells_no_end(tmp_path):
    for info in (5, None, {}):
        server, looking = whole_scan(tmp_path)
        good = server.ask
        closing = {**server.document, "info": info}
        asked = iter([server.document, server.document])

        def ask(command, *words, good=good, asked=asked, closing=closing, **bounds):
            return json.dumps(next(asked, closing)).encode() if command == "JSON.GET" else good(command, *words, **bounds)

        server.ask = ask
        assert looking.look()[-1] == End("d_0012")


def test_patience_begins_when_a_scan_is_followed_and_when_the_server_is_back(tmp_path, monkeypatch):
    """A file that came late was given up at once, if its scan had waited, or the server had been away, for long."""
    moment = [1000.0]
    monkeypatch.setattr(source.time, "monotonic", lambda: moment[0])
    server = Recorded(tmp_path)
    looking = Looking(server, tmp_path)
    looking.look()
    add_whole_scan(server)
    looking.reader._find_runs(server)
    moment[0] += 60  # it waits
    assert looking.look() == []
    moment[0] += 60  # the server is away
    looking.reader.resume()
    assert looking.look() == []
    write_files(tmp_path)
    assert [type(message) for message in looking.look()] == [Begin, *12 * [Arrived], End]


def test_files_elsewhere_are_not_opened(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    write_files(tmp_path)
    for pattern in ("../mpx_%04d.h5", "../../../../etc/%d", "%099999d.h5", "%d%d", "plain.h5", "%s"):
        _, looking = whole_scan(inner, pattern=pattern)
        assert not [message for message in looking.look() if isinstance(message, Arrived)]


def test_a_file_that_never_comes_is_told(tmp_path, monkeypatch):
    _, looking = whole_scan(tmp_path)
    (tmp_path / "mpx_0001.h5").unlink()
    assert len(looking.look()) == 6
    assert looking.look() == []
    monkeypatch.setattr(source, "PATIENCE", -1.0)
    assert [type(message) for message in looking.look()] == [Dropped, End]


def test_places_of_images_by_acquisitions():
    saving = Saving("/a/mpx_%04d.h5", "data", 3, 3, 7)  # as the table in lima/client.py
    assert [saving.place(index) for index in (0, 3, 6, 7, 10, 13)] == [(3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0)]
    assert saving.place(12) == (7, 2)
    assert [saving.readable(saved, False) for saved in (0, 1, 3, 4, 7, 8)] == [0, 0, 0, 3, 6, 7]
    assert saving.readable(8, True) == 8
    assert saving.name(12) == "/a/mpx_0012.h5"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"?", "malformed"),
        (b"$99999999999\r\n", "oversized"),
        (b"*999999\r\n", "oversized"),
        (b"*1\r\n" * 20, "malformed"),
        (b"$5x\r\n", "malformed"),
        (b"-ERR no\r\n", "refused"),
        (b"*2\r\n$600\r\n" + b"a" * 602 + b"$600\r\n", "oversized"),
    ],
)
def test_answers_are_bounded_before_they_are_read(sent, reason):
    with pytest.raises(UnusableError) as refused:
        read_answer(io.BytesIO(sent), 1000)
    assert refused.value.reason == reason


def test_answers_are_read():
    sent = b"*4\r\n$2\r\nab\r\n:-12\r\n*-1\r\n*2\r\n+OK\r\n$-1\r\n"
    assert read_answer(io.BytesIO(sent)) == [b"ab", -12, None, [b"OK", None]]
    for cut in range(len(sent)):
        with pytest.raises((ConnectionError, UnusableError)):
            read_answer(io.BytesIO(sent[:cut]))


def test_mutated_answers_never_raise_and_keep_the_order(tmp_path):
    random, heard = np.random.default_rng(1), []
    for _ in range(150):
        server, looking = whole_scan(tmp_path)
        looking.ledger.used_names.clear()
        good = server.ask

        def mutated(*words, good=good, **bounds):
            content = bytearray(encode(good(*words, **bounds)))
            if random.random() < 0.1:
                content[random.integers(len(content))] = random.integers(256)
            return read_answer(io.BytesIO(bytes(content)), 10**7)

        server.ask = mutated
        for _ in range(3):
            with contextlib.suppress(UnusableError, ConnectionError):  # the server is asked anew
                heard += looking.look()
        heard += looking.ledger.end("esrf:scan:new", "over")
    scans = [message for message in heard if isinstance(message, Begin | End)]
    assert len(scans) > 100
    for first, second in pairwise(scans):
        assert isinstance(first, Begin) != isinstance(second, Begin)


def test_addresses_and_options_that_are_none(tmp_path):
    for target in ("beamline", "redis://host", "redis://user:word@host:1", "redis://host:99999"):
        with pytest.raises(ConfigError, match="HOST:PORT"):
            open_source(f"blissdata:{target}?files={tmp_path}")
    with pytest.raises(ConfigError, match="folder of the detector's files"):
        open_source("blissdata:redis://127.0.0.1:6379")


@pytest.fixture
def real(tmp_path):
    pytest.importorskip("blissdata")
    server = RealServer(tmp_path)
    yield server
    server.end()
    gc.collect()


@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_a_real_server_with_its_modules(tmp_path, real):
    """Two scans, one of them aborted first; the server is away for a moment in between."""
    scan = toy_scan()
    sink = open_sink(f"blissdata:redis://127.0.0.1:{real.port}?files={tmp_path / 'frames'}&per_file=5")

    def play():
        time.sleep(0.5)
        playing(scan, sink, Faults(abort=7))()
        real.end()
        time.sleep(0.5)
        real.start()
        again = open_sink(f"blissdata:redis://127.0.0.1:{real.port}?files={tmp_path / 'more'}&per_file=5")
        playing(scan, again)()

    heard = listen(open_source(f"{sink.url.replace('frames', '')}"), play, scans=3)
    assert [type(message) for message in heard.messages if isinstance(message, Trouble)] == [Trouble]
    assert not heard.lost
    assert heard.ends == [End("emit_0001", "the scan ended by USER_ABORT"), End("emit_0002"), End("emit_0001_2")]
    for name in ("emit_0002", "emit_0001_2"):
        assert_equal(heard, scan, name)


@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_a_server_that_goes_while_a_scan_is_played_is_said(tmp_path, real):
    sink = open_sink(f"blissdata:redis://127.0.0.1:{real.port}?files={tmp_path / 'frames'}")
    real.end()
    with pytest.raises(OutputError, match="does not take what is published"):
        playing(toy_scan(), sink)()
    real.start()
