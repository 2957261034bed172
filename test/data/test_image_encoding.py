"""Encodings against pictures encoded here, byte by byte or by OpenCV's inverse conversion."""

from __future__ import annotations

import array
import struct
from zlib import crc32

import cv2
import numpy as np
import pytest

from dimm_ros.data.image_encoding import (
    ENCODINGS,
    decode_compressed,
    decode_depth,
    decode_file,
    decode_raw,
    stored_size,
)
from dimm_ros.data.image_file import image_size, load_depth, load_rgb
from dimm_ros.errors import DataError, DimmError, InputError
from dimm_ros.geometry.camera import Camera


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
    [
        ("rgb16", [0, 1, 2]),
        ("bgr16", [2, 1, 0]),
        ("rgba16", [0, 1, 2, 1]),
        ("bgra16", [2, 1, 0, 1]),
        ("16UC3", [2, 1, 0]),
    ],
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


@pytest.mark.parametrize(
    ("encoding", "luma_first"), [("yuv422", False), ("uyvy", False), ("yuv422_yuy2", True), ("yuyv", True)]
)
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
    np.testing.assert_array_equal(
        decode_compressed(format, cv2.imencode(".png", picture[..., ::-1])[1].tobytes()), picture
    )


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


def mosaic(pattern: str, colour: tuple[int, int, int], kind=np.uint8) -> np.ndarray:
    """(24, 32) of a camera that sees one colour through a Bayer pattern."""
    pixels = np.empty((24, 32), kind)
    for place, name in enumerate(pattern):
        pixels[place // 2 :: 2, place % 2 :: 2] = colour["rgb".index(name)] * (257 if kind is np.uint16 else 1)
    return pixels


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("tail", ["", "bayer_{}8"])
def test_a_compressed_mosaic_is_demosaiced(pattern, tail):
    data = cv2.imencode(".png", mosaic(pattern, (220, 40, 30)))[1].tobytes()
    image = decode_compressed(f"bayer_{pattern}8; png compressed {tail.format(pattern)}", data)
    np.testing.assert_array_equal(image, np.full((24, 32, 3), [220, 40, 30]))


def test_a_compressed_mosaic_of_sixteen_bits_and_of_a_jpeg():
    data = cv2.imencode(".png", mosaic("rggb", (220, 40, 30), np.uint16))[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("bayer_rggb16; png compressed ", data)[12, 12], [220, 40, 30])
    data = cv2.imencode(".jpg", mosaic("rggb", (220, 40, 30)), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    image = decode_compressed("bayer_rggb8; jpeg compressed ", data)
    assert np.abs(image[2:-2, 2:-2].astype(int) - [220, 40, 30]).max() <= 6


def test_a_mosaic_that_was_turned_into_a_picture_before_is_left_alone(picture):
    data = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    for format in ("bayer_rggb8; png compressed bgr8", "bayer_rggb8; png compressed "):
        np.testing.assert_array_equal(decode_compressed(format, data), picture)


def test_grey_of_sixteen_bits_is_scaled_as_the_raw_message():
    data = cv2.imencode(".png", np.array([[0, 128, 129, 32768, 65535]], np.uint16))[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("mono16; png compressed ", data)[0, :, 0], [0, 0, 1, 128, 255])


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "16SC1"])
def test_compressed_measurements_are_no_picture(encoding):
    data = cv2.imencode(".png", np.ones((4, 4), np.uint16))[1].tobytes()
    with pytest.raises(InputError, match=f"'{encoding}' holds measurements .* not a picture"):
        decode_compressed(f"{encoding}; png compressed ", data)


def jpeg(progressive: bool = False, restart: int = 0) -> bytes:
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8), (5, 5), 0)
    settings = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive), cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    return cv2.imencode(".jpg", noise, settings)[1].tobytes()


def thumbnail_of(data: bytes) -> bytes:
    """A JPEG with a whole one in its EXIF segment, as cameras write a preview."""
    segment = b"Exif\0\0" + jpeg()[:60000]
    return data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]


@pytest.fixture
def lenient(monkeypatch):
    """OpenCV before 4.11, which fills with grey what a truncated JPEG lacks: given an end marker, this one does too."""
    decode = cv2.imdecode
    end = np.array([0xFF, 0xD9], np.uint8)
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: decode(np.append(data, end), flags))


@pytest.mark.parametrize(
    "make", [jpeg, lambda: jpeg(progressive=True), lambda: jpeg(restart=4), lambda: thumbnail_of(jpeg())]
)
def test_a_jpeg_is_decoded_to_its_end_or_not_at_all(make, lenient, tmp_path):
    data = make()
    start = len(data) - len(jpeg()) // 2 if data[2:4] == b"\xff\xe1" else len(data) // 2
    for part in (data[:start], data[:-2], data[:-1]):
        with pytest.raises(InputError, match="Compressed image of format 'jpeg' .*it is truncated"):
            decode_compressed("jpeg", part)
        (tmp_path / "a.jpg").write_bytes(part)
        with pytest.raises(DataError, match="a.jpg' cannot be decoded; it is truncated"):
            load_rgb(tmp_path / "a.jpg")
    for whole in (data, data + bytes(300)):  # some drivers send their whole buffer
        assert decode_compressed("jpeg", whole).shape == (120, 160, 3)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header alone is that large."""
    data = bytearray(cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", crc32(data[12:29]))
    return bytes(data)


def test_the_size_is_known_before_anything_is_decoded(monkeypatch, tmp_path):
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: pytest.fail("its pixels were decoded"))
    assert stored_size(png_of(5000, 3000)) == (5000, 3000)
    (tmp_path / "a.png").write_bytes(png_of(5000, 3000))
    camera = Camera(64, 48, 50, 50, 32, 24)
    with pytest.raises(DataError, match="a.png' is 5000x3000, but its camera is 64x48"):
        load_rgb(tmp_path / "a.png", camera)
    (tmp_path / "a.png").write_bytes(png_of(50000, 50000))
    for call in (lambda: load_rgb(tmp_path / "a.png"), lambda: load_depth(tmp_path / "a.png")):
        with pytest.raises(DataError, match="a.png' cannot be decoded; its header promises more than 179 million"):
            call()
    with pytest.raises(DataError, match="a.png' cannot be read: its header promises more pixels than any camera has"):
        image_size(tmp_path / "a.png")
    with pytest.raises(InputError, match="Compressed image of format 'png' .* promises more than 179 million pixels"):
        decode_compressed("png", png_of(50000, 50000))


@pytest.mark.filterwarnings("ignore")  # PIL's, of what it reads all the same
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff", ".bmp", ".ppm"])
def test_damaged_files_get_one_sentence(picture, tmp_path, suffix):
    """Bytes changed at random, and cuts: a picture or a sentence, never an exception of PIL's or OpenCV's."""
    whole = cv2.imencode(suffix, picture)[1].tobytes()
    rng = np.random.default_rng(3)
    path = tmp_path / f"a{suffix}"
    for turn in range(60):
        data = bytearray(whole[: rng.integers(1, len(whole))] if turn % 3 == 0 else whole)
        for place in rng.integers(0, min(len(data), 80), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(bytes(data))
        for read, given in ((decode_file, bytes(data)), (load_rgb, path), (image_size, path), (load_depth, path)):
            try:
                read(given, cv2.IMREAD_COLOR) if read is decode_file else read(given)
            except DimmError as error:
                assert "\n" not in str(error)
