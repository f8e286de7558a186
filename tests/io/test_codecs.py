from __future__ import annotations

import contextlib
import struct

import h5py
import hdf5plugin
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from braggshot.io.codecs import (
    Codec,
    DamagedError,
    lz4_blocks_decode,
    lz4_blocks_encode,
    lz4_decode,
    lz4_encode,
    zstd_decode,
    zstd_encode,
)

RNG = np.random.default_rng(0)
KINDS = ["bslz4", "blosc"]


def counts(shape, dtype, mean=3.0):
    return RNG.poisson(mean, shape).astype(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 64), (37, 53), (128, 200), (256, 257)])
def test_images_come_back(kind, dtype, shape):
    codec = Codec(kind, shape, np.dtype(dtype))
    for mean in (0.01, 3.0, 100.0):
        image = counts(shape, dtype, mean)
        np.testing.assert_array_equal(codec.decode(codec.encode(image)), image)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f8"])
def test_lz4_comes_back(dtype):
    image = counts((37, 53), dtype)
    found = lz4_decode(lz4_encode(image), image.shape, image.dtype)
    np.testing.assert_array_equal(found, image)
    assert found.flags.writeable


def test_bitshuffle_without_a_header_is_read_too():
    image = counts((100, 131), np.uint16)
    codec = Codec("bslz4", image.shape, image.dtype)
    np.testing.assert_array_equal(codec.decode(codec.encode(image)[12:]), image)


def test_the_header_is_the_documented_one():
    payload = Codec("bslz4", (64, 64), np.dtype("u4")).encode(counts((64, 64), "u4"))
    assert struct.unpack_from(">QI", payload) == (64 * 64 * 4, 8192)


def test_noise_that_cannot_be_compressed_comes_back():
    image = RNG.integers(0, 2**16, (64, 64), np.uint16)
    codec = Codec("bslz4", image.shape, image.dtype)
    np.testing.assert_array_equal(codec.decode(codec.encode(image)), image)
    np.testing.assert_array_equal(lz4_decode(lz4_encode(image), image.shape, image.dtype), image)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_another_size_is_refused(kind):
    payload = Codec(kind, (64, 64), np.dtype("u2")).encode(counts((64, 64), "u2"))
    with pytest.raises(DamagedError):
        Codec(kind, (64, 65), np.dtype("u2")).decode(payload)
    with pytest.raises(DamagedError):
        lz4_decode(lz4_encode(counts((64, 64), "u2")), (64, 65), np.dtype("u2"))


def test_a_bomb_is_not_unpacked():
    """A few bytes that say they are much: refused by what is expected, not by what they say."""
    bomb = lz4_encode(np.zeros((4096, 4096), np.uint8))
    assert len(bomb) < 100_000
    with pytest.raises(DamagedError):
        lz4_decode(bomb, (8, 8), np.dtype("u1"))
    with pytest.raises(DamagedError):
        Codec("bslz4", (8, 8), np.dtype("u1")).decode(struct.pack(">QI", 2**60, 8192) + b"\0\0\0\1x")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_read_but_never_crash(kind, data):
    codec = CODECS[kind]
    payload = bytearray(PAYLOADS[kind])
    for _ in range(data.draw(st.integers(1, 5))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        payload = payload[: data.draw(st.integers(0, len(payload)))]
    try:
        found = codec.decode(bytes(payload))
        assert found.shape == (40, 50)
    except DamagedError:
        pass
    np.testing.assert_array_equal(codec.decode(PAYLOADS[kind]), IMAGE)  # and the next image is read as if nothing had been


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=400))
def test_noise_is_refused(kind, noise):
    with pytest.raises(DamagedError):
        CODECS[kind].decode(noise)


CODECS = {kind: Codec(kind, (40, 50), np.dtype("u2")) for kind in KINDS}
IMAGE = counts((40, 50), "u2")
PAYLOADS = {kind: CODECS[kind].encode(IMAGE) for kind in KINDS}


@pytest.mark.parametrize("block", [1024, 4096, 2**30])
def test_lz4_blocks_are_those_of_hdf5(block):
    image = np.concatenate([counts((40, 53), "u2"), RNG.integers(0, 2**16, (40, 53), np.uint16)])
    with h5py.File("blocks", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("d", image.shape, image.dtype, chunks=image.shape, **hdf5plugin.LZ4(nbytes=block))
        data[...] = image
        file.flush()
        _, payload = data.id.read_direct_chunk((0, 0))
    np.testing.assert_array_equal(lz4_blocks_decode(payload, image.shape, image.dtype), image)
    np.testing.assert_array_equal(lz4_blocks_decode(lz4_blocks_encode(image), image.shape, image.dtype), image)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_lz4_blocks_are_refused_or_read(data):
    payload = bytearray(BLOCKS)
    for _ in range(data.draw(st.integers(1, 5))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)))]
    with contextlib.suppress(DamagedError):
        assert lz4_blocks_decode(bytes(payload), (40, 50), np.dtype("u2")).shape == (40, 50)


@pytest.mark.parametrize(
    "header", [struct.pack(">QI", 4000, 1), struct.pack(">QI", 4000, 0), struct.pack(">QI", 2**60, 2**30), b""]
)
def test_lz4_headers_that_cannot_be(header):
    with pytest.raises(DamagedError):
        lz4_blocks_decode(header + b"\0\0\0\1x" * 4000, (40, 50), np.dtype("u2"))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f8"])
def test_zstd_comes_back(dtype):
    image = counts((37, 53), dtype)
    found = zstd_decode(zstd_encode(image), image.shape, image.dtype)
    np.testing.assert_array_equal(found, image)
    assert found.flags.writeable


def test_zstd_frames_of_hdf5_are_read_too():
    image = counts((40, 53), "u2")
    with h5py.File("frame", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("d", image.shape, image.dtype, chunks=image.shape, **hdf5plugin.Zstd())
        data[...] = image
        file.flush()
        _, payload = data.id.read_direct_chunk((0, 0))
    np.testing.assert_array_equal(zstd_decode(payload, image.shape, image.dtype), image)


def test_a_zstd_frame_is_of_the_size_that_it_says():
    large = zstd_encode(np.zeros((4000, 5000), np.uint16))
    with pytest.raises(DamagedError, match="another length"):
        zstd_decode(large, (40, 50), np.dtype("u2"))
    unsaid = zstandard.ZstdCompressor(write_content_size=False).compress(IMAGE.tobytes())
    with pytest.raises(DamagedError, match="another length"):
        zstd_decode(unsaid, (40, 50), np.dtype("u2"))


@pytest.mark.parametrize("lost", [1, 10, 200])
def test_a_zstd_frame_that_was_cut_is_no_image(lost):
    with pytest.raises(DamagedError):
        zstd_decode(FRAME[:-lost], (40, 50), np.dtype("u2"))
    with pytest.raises(DamagedError):
        zstd_decode(FRAME + bytes(lost), (40, 50), np.dtype("u2"))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_zstd_frames_are_refused_or_read(data):
    payload = bytearray(FRAME)
    for _ in range(data.draw(st.integers(1, 5))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DamagedError):
        assert zstd_decode(bytes(payload), (40, 50), np.dtype("u2")).shape == (40, 50)


@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=400))
def test_noise_is_no_zstd_frame(noise):
    with pytest.raises(DamagedError):
        zstd_decode(noise, (40, 50), np.dtype("u2"))


BLOCKS = lz4_blocks_encode(IMAGE)
FRAME = zstd_encode(IMAGE)
