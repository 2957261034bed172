"""Encodings against pictures encoded here, byte by byte or by OpenCV's inverse conversion."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

from dimm_ros.data.image_encoding import ENCODINGS, decode_compressed, decode_depth, decode_raw
from dimm_ros.errors import InputError


@pytest.fixture
def picture() -> np.ndarray:
    """(24, 32, 3) smooth colours, so that chroma subsampling and demosaicing lose little."""
    y, x = np.mgrid[0:24, 0:32]
    return np.stack([60 + 4 * x, 50 + 5 * y, 200 - 2 * x - 3 * y], axis=-1).astype(np.uint8)


def decode(encoding: str, pixels: np.ndarray, bigendian: bool = False, pad: int = 0) -> np.ndarray:
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=255)
    return decode_raw(encoding, pixels.shape[0], pixels.shape[1], rows.shape[1], bigendian, rows.tobytes())


@pytest.mark.parametrize("pad", [0, 7])
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [
        ("rgb8", [0, 1, 2]),
        ("bgr8", [2, 1, 0]),
        ("rgba8", [0, 1, 2, 0]),
        ("bgra8", [2, 1, 0, 0]),
        ("8UC3", [2, 1, 0]),
        ("8UC4", [2, 1, 0, 1]),
    ],
)
def test_colour_orders_and_padding(picture, encoding, channels, pad):
    np.testing.assert_array_equal(decode(encoding, picture[..., channels], pad=pad), picture)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_fills_three_channels(picture, encoding):
    np.testing.assert_array_equal(decode(encoding, picture[..., 0], pad=3), np.repeat(picture[..., :1], 3, axis=2))


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [("rgb16", [0, 1, 2]), ("bgr16", [2, 1, 0]), ("rgba16", [0, 1, 2, 1]), ("bgra16", [2, 1, 0, 1]), ("16UC3", [2, 1, 0])],
)
def test_sixteen_bits_are_swapped_and_scaled(picture, encoding, channels, bigendian):
    stored = (picture.astype(np.uint16) * 257)[..., channels].astype(">u2" if bigendian else "<u2")
    np.testing.assert_array_equal(decode(encoding, stored, bigendian, pad=6), picture)


def test_mono16_rounds_as_cv_bridge():
    grey = np.array([[0, 128, 129, 32768, 65535]], dtype="<u2")
    np.testing.assert_array_equal(decode("mono16", grey)[0, :, 0], [0, 0, 1, 128, 255])


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns(picture, pattern, depth):
    """Every pixel of the mosaic holds the colour its name says; demosaicing must give smooth colours back."""
    mosaic = np.empty(picture.shape[:2], np.uint8)
    for place, colour in enumerate(pattern):
        mosaic[place // 2 :: 2, place % 2 :: 2] = picture[place // 2 :: 2, place % 2 :: 2, "rgb".index(colour)]
    if depth == 16:
        mosaic = mosaic.astype("<u2") * np.uint16(257)
    image = decode(f"bayer_{pattern}{depth}", mosaic)
    assert np.abs(image[2:-2, 2:-2].astype(int) - picture[2:-2, 2:-2]).max() <= 6


def yuv444(picture: np.ndarray) -> np.ndarray:
    """Studio-range BT.601, written out."""
    r, g, b = np.moveaxis(picture.astype(float), -1, 0)
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    u = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    v = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    return np.rint(np.stack([y, u, v], axis=-1)).astype(np.uint8)


@pytest.mark.parametrize(("encoding", "luma_first"), [("yuv422", False), ("uyvy", False), ("yuv422_yuy2", True), ("yuyv", True)])
def test_packed_yuv(picture, encoding, luma_first):
    yuv = yuv444(picture)
    chroma = yuv[..., 1].copy()
    chroma[:, 1::2] = yuv[:, ::2, 2]
    pair = [yuv[..., 0], chroma] if luma_first else [chroma, yuv[..., 0]]
    assert np.abs(decode(encoding, np.stack(pair, axis=-1), pad=4).astype(int) - picture).max() <= 8


@pytest.mark.parametrize("encoding", ["nv21", "nv24"])
def test_planar_yuv(picture, encoding):
    yuv = yuv444(picture)
    if encoding == "nv21":
        chroma = yuv[:, :, 2:0:-1].astype(float).reshape(12, 2, 16, 2, 2).mean(axis=(1, 3)).astype(np.uint8)
    else:
        chroma = yuv[..., 1:]
    data = yuv[..., 0].tobytes() + chroma.tobytes()
    assert np.abs(decode_raw(encoding, 24, 32, 32, False, data).astype(int) - picture).max() <= 8


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, lambda data: array.array("B", data), lambda data: np.frombuffer(data, np.uint8)]
)
def test_rgb8_is_a_view_of_any_buffer(picture, kind):
    data = kind(picture.tobytes())
    image = decode_raw("rgb8", 24, 32, 96, False, data)
    np.testing.assert_array_equal(image, picture)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("yuv9", 24, 32, 96), "'yuv9' is not known; known are 16UC3"),
        (("16UC1", 24, 32, 64), "not a picture"),
        (("32FC1", 24, 32, 128), "not a picture"),
        (("rgb8", 0, 32, 96), "size 32x0"),
        (("rgb8", 24, 0, 96), "size 0x24"),
        (("rgb8", 24, 32, 95), "needs 96 bytes a row, but its step is 95"),
        (("rgb8", 25, 32, 96), "needs 2400 bytes, but has 2304"),
        (("yuyv", 24, 31, 96), "must be even"),
        (("nv21", 23, 32, 32), "must be even"),
        (("nv24", 24, 64, 64), "needs 4608 bytes, but has 2304"),
    ],
)
def test_bad_images_get_one_sentence(arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        decode_raw(*arguments, False, bytes(24 * 96))
    assert "\n" not in str(caught.value)


def test_no_data_at_all():
    with pytest.raises(InputError, match="needs 2304 bytes, but has 0"):
        decode_raw("rgb8", 24, 32, 96, False, b"")


def test_every_listed_encoding_is_decoded():
    for encoding in ENCODINGS:
        assert decode_raw(encoding, 24, 32, 32 * 8, False, bytes(24 * 32 * 24)).shape == (24, 32, 3), encoding


@pytest.mark.parametrize("format", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8"])
def test_compressed(picture, format):
    np.testing.assert_array_equal(decode_compressed(format, cv2.imencode(".png", picture[..., ::-1])[1].tobytes()), picture)


def test_compressed_with_swapped_channels(picture):
    swapped = cv2.imencode(".png", picture)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("rgb8; png compressed rgb8", swapped), picture)


@pytest.mark.parametrize(
    ("format", "data"), [("16UC1; compressedDepth png", b"x"), ("jpeg", b""), ("jpeg", b"\xff\xd8\xff\xe0 cut off")]
)
def test_bad_compressed(format, data):
    with pytest.raises(InputError, match="Compressed image of format"):
        decode_compressed(format, data)


def test_depth_in_millimetres_and_metres():
    millimetres = np.array([[0, 1500, 65535]], dtype=">u2")
    np.testing.assert_allclose(decode_depth("16UC1", 1, 3, 6, True, millimetres.tobytes()), [[0, 1.5, 0]])
    metres = np.array([[np.nan, 1.5, np.inf, -1]], dtype="<f4")
    depth = decode_depth("32FC1", 1, 4, 16, False, metres.tobytes())
    np.testing.assert_array_equal(depth, [[0, 1.5, 0, 0]])
    assert depth.dtype == np.float32
    with pytest.raises(InputError, match="Depth image encoding 'rgb8'"):
        decode_depth("rgb8", 1, 1, 3, False, bytes(3))
