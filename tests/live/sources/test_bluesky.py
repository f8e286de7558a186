from __future__ import annotations

import json
import threading
import time
from itertools import pairwise

import h5py
import numpy as np
import pytest
from camera import Camera
from played import assert_equal, listen, playing, toy_scan
from scipy.constants import electron_volt

from braggshot.errors import ConfigError
from braggshot.live.messages import Arrived, Begin, Dropped, End, Trouble
from braggshot.live.simulator.faults import Faults
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources import bluesky
from braggshot.live.sources.bluesky import Options, Reader, read_document
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import UnusableError
from braggshot.live.sources.registry import open_source

COUNTS = toy_scan().frames[:]


def place(folder):
    return f"bluesky:tcp://127.0.0.1:*?files={folder}"


def message(kind, /, **document):
    return [b" ".join([b"", kind.encode(), json.dumps(document).encode()])]


def run(path, frames=12, motor="eta", units="deg"):
    """The documents of a run with a step scan, as a RunEngine tells them."""
    image = {"shape": [1, 20, 31], "dtype": "array", "external": "STREAM:"}
    documents = [
        message("start", uid="r1", scan_id=54, num_points=frames, motors=[motor], plan_name="scan"),
        message("descriptor", uid="d0", run_start="r1", name="baseline", data_keys={"x": {"shape": [], "dtype": "number"}}),
        message("descriptor", uid="d1", run_start="r1", data_keys={"eta": {"shape": [], "units": units}, "eiger": image}),
        message("stream_resource", uid="s1", run_start="r1", data_key="eiger", uri=f"file://localhost{path}",
                mimetype="application/x-hdf5", parameters={"dataset": "entry/data"}),
    ]  # fmt: skip
    for index in range(frames):
        indices = {"start": index, "stop": index + 1}
        documents += [message("stream_datum", stream_resource="s1", descriptor="d1", indices=indices)]
        documents += [message("event", descriptor="d1", seq_num=index + 1, data={"eta": 10.0 + 0.1 * index})]
    return [*documents, message("stop", run_start="r1", exit_status="success")]


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["entry/data"] = COUNTS
    return tmp_path / "frames.h5"


def told(folder, messages, **options):
    ledger, read, heard = Ledger(ScanDefaults()), Reader(Options(files=str(folder), **options)), []
    for parts in messages:
        heard += read(parts, ledger)
    return heard


def frames_of(heard):
    return {message.frame.index: message.frame for message in heard if isinstance(message, Arrived)}


@pytest.mark.parametrize("compress", ["none", "bslz4"])
def test_every_frame_arrives_as_it_was_sent(compress, tmp_path):
    scan = toy_scan()
    sink = open_sink(place(tmp_path), compress=compress)
    heard = listen(open_source(sink.url), playing(scan, sink, repeat=2), scans=2)
    assert heard.ends == [End("scan_0001"), End("scan_0002")]
    assert not heard.lost
    for begin in heard.begins:
        assert begin.frames == 12
        assert_equal(heard, scan, begin.scan)


def test_an_aborted_run_is_followed_by_the_whole_one(tmp_path):
    scan, sink = toy_scan(), open_sink(place(tmp_path))
    heard = listen(open_source(sink.url), playing(scan, sink, Faults(abort=4)), scans=2)
    assert heard.ends == [End("scan_0001", "the run ended by abort"), End("scan_0002")]
    assert_equal(heard, scan, "scan_0002")


def test_a_step_scan_has_the_angles_of_its_events(path):
    for units, factor in (("deg", np.pi / 180), ("radians", 1.0)):
        heard = told(path.parent, run(path, units=units))
        frames = frames_of(heard)
        assert [type(message) for message in heard] == [Begin, *12 * [Arrived], End]
        assert (heard[0].scan, heard[0].frames, heard[-1]) == ("scan_0054", 12, End("scan_0054"))
        for index, frame in frames.items():
            np.testing.assert_array_equal(frame.image, COUNTS[index])
        angles = [frames[index].rocking_angle for index in range(12)]  # though all frames are there at the first event
        np.testing.assert_allclose(angles, factor * (10.0 + 0.1 * np.arange(12)))


def test_no_frame_is_lost_with_documents_that_never_came(path):
    """Whoever knows the file reads all frames of it, whichever of the later documents come, once or twice, in whatever order."""
    documents, random = run(path), np.random.default_rng(2)
    for _ in range(30):
        later = [document for document in documents[4:-1] if random.random() < 0.6]
        later = [later[index] for index in random.permutation(len(later))]
        heard = told(path.parent, [*documents[:4], *later, *later[:3], documents[-1]])
        assert sorted(frames_of(heard)) == list(range(12))
        assert not [message for message in heard if isinstance(message, Dropped)]
    heard = told(path.parent, [*documents[:8], message("start", uid="r2", scan_id=55)])  # the stop document never came
    assert sorted(frames_of(heard)) == list(range(12))


def test_a_frame_waits_for_its_event_a_while(path):
    """An event that comes after the next ones still tells its angle; one that never comes holds up no more than eight frames."""
    documents = run(path)
    late = documents.pop(7)  # the event of the second frame
    heard = told(path.parent, [*documents[:13], late, *documents[13:]])
    frames = frames_of(heard)
    assert list(frames) == list(range(12))
    np.testing.assert_allclose([frames[index].rocking_angle for index in range(12)], np.deg2rad(10.0 + 0.1 * np.arange(12)))
    heard = told(path.parent, documents)
    assert [frame.rocking_angle is None for frame in frames_of(heard).values()] == [index == 1 for index in range(12)]
    assert len(frames_of(told(path.parent, documents[:-2]))) > 3


def test_frames_are_read_though_no_further_document_comes(path, monkeypatch):
    assert len(frames_of(told(path.parent, [*run(path)[:6], None]))) == 1  # the event of the next frame may still come
    monkeypatch.setattr(bluesky, "PATIENCE", -1.0)
    heard = told(path.parent, [*run(path)[:6], None])
    assert sorted(frames_of(heard)) == list(range(12))
    assert heard[-1] == End("scan_0054")


def test_a_file_that_cannot_be_read_is_told_once(path):
    path.write_bytes(b"no HDF5")
    heard = told(path.parent, [*run(path)[:8], None, None, run(path)[-1]])
    assert [type(message) for message in heard] == [Begin, Dropped, End]
    assert heard[1].reason == "unreadable"


def test_a_fly_scan_is_read_as_it_is_written(path):
    documents = [document for document in run(path, motor="none") if b" event " not in document[0]]
    heard = told(path.parent, documents[:5])
    assert len(frames_of(heard)) == 12


def page(first, last):
    """A page of events, as a RunEngine tells those that it collects."""
    return message("event_page", descriptor="d1", seq_num=[*range(first + 1, last + 1)],
                   data={"eta": [10.0 + 0.1 * index for index in range(first, last)]})  # fmt: skip


@pytest.mark.slow
def test_a_run_of_100_000_frames_comes_in_pages(tmp_path):
    """The publisher dies within it and comes back: documents are lost, frames are not."""
    frames, per_page = 100_000, 20_000
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        data = file.create_dataset("entry/data", (frames, 2, 3), "u4", chunks=(1000, 2, 3))
        data[:] = np.arange(frames)[:, None, None] + np.zeros((1, 2, 3), "u4")
    documents = [*run(tmp_path / "frames.h5", frames=1)[:4], message("stream_datum", stream_resource="s1")]
    documents[0] = message("start", uid="r1", scan_id=54, num_points=frames, motors=["eta"])
    pages = [page(first, first + per_page) for first in range(0, frames, per_page)]
    assert len(pages[-1][0]) > 2**18
    stop = message("stop", run_start="r1", exit_status="success")
    for lost in (None, 2):
        heard = told(tmp_path, [*documents, *(text for index, text in enumerate(pages) if index != lost), stop])
        assert heard[-1] == End("scan_0054") or lost
        arrived = [message.frame for message in heard if isinstance(message, Arrived)]
        assert [frame.index for frame in arrived] == [*range(frames)]
        assert all(frame.image[0, 0] == frame.index for frame in arrived)
        known = [frame for frame in arrived if frame.rocking_angle is not None]
        np.testing.assert_allclose([frame.rocking_angle for frame in known], np.deg2rad([10.0 + 0.1 * f.index for f in known]))
        assert len(known) == (frames if lost is None else frames - per_page)
        said = [message.reason for message in heard if isinstance(message, Trouble)]
        assert len(said) == (lost is not None)
        assert not said or "20000 frames came without the position of 'eta'" in said[0]


def test_a_publisher_that_dies_in_a_run_and_comes_back(path):
    """Documents that it told while it was away are lost; frames and their order are not."""
    import zmq

    def publish(context, port, documents):
        socket = context.socket(zmq.XPUB)
        socket.bind(f"tcp://127.0.0.1:{port}")
        assert socket.poll(10_000)
        socket.recv()
        for (text,) in documents:
            socket.send(text)
        socket.close(linger=2000)

    documents, context = run(path), zmq.Context()
    with zmq.Context() as probing, probing.socket(zmq.XPUB) as probe:
        port = probe.bind_to_random_port("tcp://127.0.0.1")

    def play():
        publish(context, port, documents[:12])
        time.sleep(0.3)
        publish(context, port, documents[16:])
        context.term()

    heard = listen(open_source(f"bluesky:tcp://127.0.0.1:{port}?files={path.parent}"), play)
    assert sorted(heard.frames("scan_0054")) == list(range(12))
    assert heard.ends == [End("scan_0054")]
    assert not heard.lost
    for index, frame in heard.frames("scan_0054").items():
        np.testing.assert_array_equal(frame.image, COUNTS[index])


def test_a_run_whose_start_was_not_heard_is_told_once(path):
    heard = told(path.parent, [*run(path)[1:], *run(path)])
    assert isinstance(heard[0], Trouble)
    assert "start was not heard" in heard[0].reason
    assert [type(message) for message in heard[1:]] == [Begin, *12 * [Arrived], End]


def test_energies_and_motors_that_are_no_angle(path):
    frames = frames_of(told(path.parent, run(path, units="keV")))
    np.testing.assert_allclose([frames[index].energy for index in range(12)], 1e3 * electron_volt * (10.0 + 0.1 * np.arange(12)))
    (left_out,) = told(path.parent, run(path, units="mm"))
    assert "'mm', which is neither an angle nor an energy" in left_out.reason
    assert len(frames_of(told(path.parent, run(path, units="mm"), units="deg"))) == 12


def test_files_elsewhere_are_not_opened(path, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link.h5").symlink_to(path)
    for uri in (path, inner / "link.h5", inner / ".." / "frames.h5", inner, "/dev/zero", inner / "%2e%2e/frames.h5"):
        heard = told(inner, run(uri))
        assert [message.reason for message in heard if isinstance(message, Dropped)] == ["link"]
        assert not frames_of(heard)
    with h5py.File(inner / "outside.h5", "w") as file:
        file["entry/data"] = h5py.ExternalLink(str(path), "entry/data")
    assert not frames_of(told(inner, run(inner / "outside.h5")))


def test_another_detector_can_be_chosen(path):
    assert not told(path.parent, run(path), detector="pilatus")
    assert len(frames_of(told(path.parent, run(path), detector="eiger"))) == 12


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "malformed"),
        ([b"a", b"b"], "malformed"),
        ([b"start"], "malformed"),
        ([b" start \x80\x04\x95"], "malformed"),  # pickle
        ([b" start [1]"], "malformed"),
        ([b" event " + b" " * (2**20 + 1)], "oversized"),
    ],
)
def test_what_is_no_document_is_refused_in_a_word(parts, reason):
    with pytest.raises(UnusableError) as refused:
        read_document(parts)
    assert refused.value.reason == reason


def test_mutated_documents_never_raise_and_keep_the_order(path):
    random, documents = np.random.default_rng(1), run(path)
    values = [None, True, -1, 0, 3, 2**63, 1e300, "", "r1", "d1", "s1", "file:///x", "file://[", [], [1, 20, 31], {}, {"a": {}}]
    ledger, read, heard = Ledger(ScanDefaults()), Reader(Options(files=str(path.parent))), []
    for turn in range(2000):
        _, name, text = documents[turn % len(documents)][0].split(b" ", 2)
        if random.random() < 0.1:
            document = json.loads(text)
            document[random.choice([*document, "uid", "scan_id", "uri"])] = values[random.integers(len(values))]
            text = json.dumps(document).encode()
        elif random.random() < 0.1:
            content = bytearray(text)
            content[random.integers(len(content))] = random.integers(256)
            text = bytes(content)
        heard += read([b" ".join([b"", name, text])], ledger)
        heard += read(None, ledger) if random.random() < 0.05 else []
    scans = [message for message in heard if isinstance(message, Begin | End)]
    assert len(scans) > 50
    for first, second in pairwise(scans):
        assert isinstance(first, Begin) != isinstance(second, Begin)


def test_addresses_and_options_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        open_source("bluesky:beamline")
    with pytest.raises(ConfigError, match="give the folder of the detector's files"):
        open_source("bluesky:tcp://127.0.0.1:5578")
    with pytest.raises(ConfigError, match="cannot publish"):
        open_sink(f"bluesky:tcp://127.0.0.1:1:1?files={tmp_path}")
    with pytest.raises(ConfigError, match="not compressed by 'lz4'"):
        open_sink(place(tmp_path), compress="lz4")


@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_a_run_engine_with_a_real_proxy(tmp_path):
    pytest.importorskip("bluesky")
    pytest.importorskip("ophyd")
    from bluesky import RunEngine
    from bluesky.callbacks.zmq import Proxy, Publisher
    from bluesky.plans import scan as step_scan
    from ophyd.sim import SynAxis

    proxy = Proxy()
    threading.Thread(target=proxy.start, daemon=True).start()
    entry, exit_port = (str(port).rpartition(":")[2] for port in (proxy.in_port, proxy.out_port))
    publisher = Publisher(f"127.0.0.1:{entry}", serializer=lambda document: json.dumps(document, default=str).encode())
    engine, heard_one = RunEngine({}, context_managers=[]), threading.Event()
    engine.subscribe(publisher)

    class Waiting:
        """The source, which tells that it listens."""

        def __init__(self):
            self.source = open_source(f"bluesky:tcp://127.0.0.1:{exit_port}?files={tmp_path}")

        def messages(self, stop):
            for message in self.source.messages(stop):
                heard_one.set()
                yield message

    def play():
        assert heard_one.wait(10)
        time.sleep(0.5)
        engine(step_scan([Camera(tmp_path / "frames.h5", COUNTS)], SynAxis(name="eta"), 10.0, 11.1, 12))

    heard = listen(Waiting(), play)
    publisher.close()
    assert heard.begins[0].frames == 12
    assert heard.ends == [End("scan_0001")]
    assert not heard.lost
    assert_equal(heard, toy_scan(), "scan_0001")
