"""Images as ROS sends them, turned into RGB arrays (or depth in metres), without cv_bridge.

The behaviour is that of ``cv_bridge.imgmsg_to_cv2(message, "rgb8")``: the Bayer names and the 16-to-8-bit scale (1/257,
rounded) are the same, rows may be padded, big-endian pixels are swapped, and an encoding that is not a picture (16UC1,
32FC1) is refused. One addition: 8UC1 is read as mono8, and 8UC3, 8UC4, 16UC3 and 16UC4 as OpenCV's BGR(A), where
cv_bridge refuses because the names do not say the channel order.
"""

from __future__ import annotations

import io
import re

import cv2
import numpy as np
from PIL import Image

from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera

#: ROS names a Bayer pattern by its first row from the first pixel, OpenCV by the 2x2 block that begins at (1, 1).
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}


def _table() -> dict[str, tuple[int, int, int | None]]:
    """Encoding -> (bytes of a channel, channels, OpenCV conversion to RGB or None when it is RGB)."""
    table: dict[str, tuple[int, int, int | None]] = {}
    for size, bits in ((1, "8"), (2, "16")):
        table[f"mono{bits}"] = (size, 1, cv2.COLOR_GRAY2RGB)
        table[f"rgb{bits}"] = (size, 3, None)
        table[f"bgr{bits}"] = table[f"{bits}UC3"] = (size, 3, cv2.COLOR_BGR2RGB)
        table[f"rgba{bits}"] = (size, 4, cv2.COLOR_RGBA2RGB)
        table[f"bgra{bits}"] = table[f"{bits}UC4"] = (size, 4, cv2.COLOR_BGRA2RGB)
        for pattern, code in _BAYER.items():
            table[f"bayer_{pattern}{bits}"] = (size, 1, code)
    table["8UC1"] = table["mono8"]
    table["yuv422"] = table["uyvy"] = (1, 2, cv2.COLOR_YUV2RGB_UYVY)
    table["yuv422_yuy2"] = table["yuyv"] = (1, 2, cv2.COLOR_YUV2RGB_YUY2)
    return table


_PACKED = _table()

#: Bytes of a pixel of the encodings whose pixels stand one after the other.
PIXEL_BYTES = {encoding: size * channels for encoding, (size, channels, _) in _PACKED.items()}

_DEPTH = {"16UC1": 2, "mono16": 2, "32FC1": 4}

#: Image encodings that ``decode_raw`` reads.
ENCODINGS = (*sorted(_PACKED), "nv21", "nv24")


def decode_raw(encoding: str, height: int, width: int, step: int, is_bigendian: bool, data) -> np.ndarray:
    """A ``sensor_msgs/Image`` as (H, W, 3) uint8 RGB.

    An unpadded rgb8 image is a view of ``data``, not a copy: do not write to it.

    Args:
        encoding: one of ``ENCODINGS``.
        height, width: size in pixels.
        step: bytes from one row to the next, at least a row's.
        is_bigendian: whether 16-bit channels are stored most significant byte first.
        data: any object with the buffer interface (bytes, array.array, uint8 array).

    Raises:
        InputError: an encoding that is unknown or is not a picture, a zero size, or data too short for the size.
    """
    if encoding in _PACKED:
        size, channels, code = _PACKED[encoding]
        pixels = _rows(encoding, height, width, step, data, size, channels, is_bigendian)
        if code is None:
            image = pixels
        else:
            image = cv2.cvtColor(np.ascontiguousarray(pixels), code)
        return image if size == 1 else cv2.convertScaleAbs(image, alpha=255.0 / 65535.0)
    if encoding in ("nv21", "nv24"):
        return _decode_planar(encoding, height, width, step, data)
    _refuse_measurements(encoding)
    raise InputError(f"Image encoding '{encoding}' is not known; known are {', '.join(ENCODINGS)}.")


def decode_compressed(format: str, data) -> np.ndarray:
    """A ``sensor_msgs/CompressedImage`` (JPEG, PNG, ...) as (H, W, 3) uint8 RGB.

    Args:
        format: the message's format field, such as "jpeg" or "rgb8; jpeg compressed bgr8". What stands before the
            semicolon is the encoding of the pixels where nothing follows "compressed", as image_transport has it for
            a mosaic.
        data: the file's bytes.

    Raises:
        InputError: depth, or bytes that are no whole image that OpenCV can read.
    """
    if "compressedDepth" in format:
        raise InputError(
            f"Compressed image of format '{format}' is a depth image; subscribe to the colour image instead."
        )
    source, _, rest = format.partition(";")
    source = source.strip()
    _refuse_measurements(source)
    encoding = rest.partition("compressed")[2].strip() or source
    try:
        if encoding in _PACKED and encoding.startswith(("bayer_", "mono16")):
            pixels = decode_file(data, cv2.IMREAD_UNCHANGED)
            if pixels.ndim == 2:  # else it is a picture already
                name = encoding.rstrip("0123456789") + str(8 * pixels.itemsize)
                stored = np.ascontiguousarray(pixels, f"<u{pixels.itemsize}").reshape(-1).view(np.uint8)
                return decode_raw(name, *pixels.shape, pixels.shape[1] * pixels.itemsize, False, stored)
        image = decode_file(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except InputError as error:
        raise InputError(f"Compressed image of format '{format}' with {len(data)} bytes {error}") from None
    # image_transport writes "compressed rgb8" when it handed RGB to an encoder that expects BGR: already swapped.
    return image if "compressed rgb" in format else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def stored_size(data) -> tuple[int, int]:
    """Width and height of an image file, from its header alone: what it takes to decode it is known before.

    Args:
        data: the file's bytes.

    Raises:
        InputError: it is no image, or one larger than any camera's. The text begins with the verb.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except Image.DecompressionBombError:
        most = 2 * Image.MAX_IMAGE_PIXELS / 1e6
        raise InputError(f"cannot be decoded; its header promises more than {most:.0f} million pixels.") from None
    except Exception:  # noqa: BLE001  PIL's parsers let out whatever a damaged header leads them to
        raise InputError("cannot be decoded; it is truncated or not a JPEG or PNG image.") from None


def check_stored_size(data, camera: Camera) -> None:
    """Whether an image file promises its camera's size, before memory is taken for it.

    Raises:
        InputError: another size, or as ``stored_size``.
    """
    try:
        width, height = stored_size(data)
    except InputError as error:
        raise InputError(f"The image {error}") from None
    if (width, height) != (camera.width, camera.height):
        raise InputError(
            f"The image is {width}x{height} but camera_info says {camera.width}x{camera.height}; "
            "publish the camera_info of this stream, scaled with the image."
        )


def decode_file(data, flags: int) -> np.ndarray:
    """The pixels of an image file as OpenCV gives them, all of them: a file that was cut off is refused.

    Args:
        data: the file's bytes.
        flags: OpenCV's, such as ``cv2.IMREAD_COLOR``; without IMREAD_IGNORE_ORIENTATION or IMREAD_UNCHANGED an EXIF
            orientation turns the picture, although intrinsics are those of the stored pixels.

    Raises:
        InputError: as ``stored_size``, or the file is damaged. The text begins with the verb.
    """
    stored_size(data)
    buffer = np.frombuffer(data, dtype=np.uint8)
    try:
        image = cv2.imdecode(buffer, flags) if _is_whole(buffer.tobytes()) else None
    except cv2.error:  # a header that promises more than OpenCV's limits
        image = None
    if image is None:
        raise InputError("cannot be decoded; it is truncated or not a JPEG or PNG image.")
    return image


#: Begins a segment of a JPEG: no stuffed byte, no filling, no restart within a scan.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def _is_whole(data: bytes) -> bool:
    """Whether a JPEG goes on to its end marker (OpenCV before 4.11 fills with grey what is missing); True of others."""
    if data[:2] != b"\xff\xd8":
        return True
    place = 2
    while (found := _MARKER.search(data, place)) and found[0] != b"\xff\xd9":
        place = found.end()
        if found[0] not in (b"\xff\xd8", b"\xff\x01"):  # these have no length
            place += int.from_bytes(data[place : place + 2], "big")
    return found is not None


def _refuse_measurements(encoding: str) -> None:
    if encoding == "16UC1" or encoding.startswith(("32F", "64F", "16S", "32S", "8S")):
        raise InputError(
            f"Image encoding '{encoding}' holds measurements (such as depth), not a picture; "
            "subscribe to the colour image instead."
        )


def decode_depth(encoding: str, height: int, width: int, step: int, is_bigendian: bool, data) -> np.ndarray:
    """A depth ``sensor_msgs/Image`` as (H, W) float32 metres, 0 where there is none (REP-118: 16UC1 mm, 32FC1 m).

    Raises:
        InputError: another encoding, a zero size, or data too short for the size.
    """
    if encoding not in _DEPTH:
        raise InputError(f"Depth image encoding '{encoding}' is not known; known are {', '.join(_DEPTH)}.")
    pixels = _rows(encoding, height, width, step, data, _DEPTH[encoding], 1, is_bigendian)
    if encoding == "32FC1":
        return np.where(np.isfinite(pixels) & (pixels > 0), pixels, 0).astype(np.float32)
    return np.where(pixels == 65535, 0, pixels).astype(np.float32) * np.float32(1e-3)


def _rows(
    encoding: str, height: int, width: int, step: int, data, size: int, channels: int, is_bigendian: bool
) -> np.ndarray:
    """(H, W) or (H, W, C) native-endian view or copy of the pixels, padding cut off."""
    row = width * channels * size
    buffer = _checked(encoding, height, width, step, row, data, (height - 1) * step + row)
    if channels == 2 and size == 1 and width % 2:
        raise InputError(
            f"Image of encoding '{encoding}' has width {width}; two pixels share their colour, so it must be even."
        )
    strided = np.lib.stride_tricks.as_strided(buffer, (height, row), (step, 1), writeable=False)
    if size == 1:
        typed = strided
    else:
        kind = ("f" if encoding == "32FC1" else "u") + str(size)
        stored = np.dtype((">" if is_bigendian else "<") + kind)
        typed = np.ascontiguousarray(strided).view(stored).astype(stored.newbyteorder("="), copy=False)
    return typed.reshape(height, width, channels) if channels > 1 else typed


def _checked(encoding: str, height: int, width: int, step: int, row: int, data, needed: int) -> np.ndarray:
    """The data as flat uint8, once its size has been found to fit."""
    buffer = np.frombuffer(data, dtype=np.uint8) if len(data) else np.empty(0, np.uint8)
    if height <= 0 or width <= 0:
        raise InputError(
            f"Image of encoding '{encoding}' has size {width}x{height}; the camera driver publishes an empty image."
        )
    if step < row:
        raise InputError(
            f"Image of encoding '{encoding}' and width {width} needs {row} bytes a row, but its step is {step}."
        )
    if len(buffer) < needed:
        raise InputError(
            f"Image of encoding '{encoding}' and size {width}x{height} needs {needed} bytes, "
            f"but has {len(buffer)}; it is truncated."
        )
    return buffer


def _decode_planar(encoding: str, height: int, width: int, step: int, data) -> np.ndarray:
    """nv21 (4:2:0, V before U) and nv24 (4:4:4, U before V): a luma plane, then an interleaved chroma plane."""
    if encoding == "nv21" and (height % 2 or width % 2):
        raise InputError(
            f"Image of encoding 'nv21' has size {width}x{height}; four pixels share their colour, so both must be even."
        )
    chroma_rows, chroma_step = (height // 2, step) if encoding == "nv21" else (height, 2 * step)
    needed = height * step + chroma_rows * chroma_step
    buffer = _checked(encoding, height, width, step, width, data, needed)
    luma = buffer[: height * step].reshape(height, step)[:, :width]
    chroma = buffer[height * step : needed].reshape(chroma_rows, chroma_step)
    if encoding == "nv21":
        return cv2.cvtColor(np.vstack([luma, chroma[:, :width]]), cv2.COLOR_YUV2RGB_NV21)
    # OpenCV has no 4:4:4 conversion of studio-range YUV: ITU-R BT.601, as its 4:2:0 conversions.
    u, v = (chroma[:, offset : 2 * width : 2].astype(np.float32) - 128 for offset in (0, 1))
    y = 1.164 * np.maximum(luma.astype(np.float32) - 16, 0)
    rgb = np.stack([y + 1.596 * v, y - 0.813 * v - 0.391 * u, y + 2.018 * u], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
