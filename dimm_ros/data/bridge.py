"""cv_bridge, where it is installed and as far as it can be trusted.

One that was built for NumPy 1 ends the process under NumPy 2, with its first image; others shear padded rows or refuse
encodings. So a child process (this module's ``main``) tries it once on a small image of each encoding, and it converts
those that came out as ``decode_raw`` has them, of messages whose rows are not padded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from dimm_ros.data.image_encoding import PIXEL_BYTES, decode_raw

if TYPE_CHECKING:
    from sensor_msgs.msg import Image

#: How long the child may take; on a busy computer importing OpenCV alone takes seconds.
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Bridge:
    """State of cv_bridge.

    Attributes:
        installed: whether it can be found.
        converts: encodings that it converts to RGB rightly; empty where it is not to be used.
        trouble: one sentence where it is installed and not to be used, else "".
    """

    installed: bool
    converts: frozenset[str]
    trouble: str

    def convert(self, message: Image) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB of a ``sensor_msgs/Image``, None where ``decode_raw`` has to read it or to say what is
        wrong.
        """
        height, width, encoding = message.height, message.width, message.encoding
        if encoding not in self.converts or message.is_bigendian:
            return None
        # Two pixels of yuv422 share their colour.
        if height < 1 or width < 1 or width % 2 or message.step != width * PIXEL_BYTES[encoding]:
            return None
        if len(message.data) != height * message.step:
            return None
        from cv_bridge import CvBridge

        try:
            image = CvBridge().imgmsg_to_cv2(message, "rgb8")
        except Exception:  # noqa: BLE001  it lets anything out: CvBridgeError, cv2.error, ValueError, TypeError
            return None
        fits = isinstance(image, np.ndarray) and image.shape == (height, width, 3) and image.dtype == np.uint8
        return image if fits else None


@cache
def bridge() -> Bridge:
    """What is known of cv_bridge; the first call tries it, which takes about a second where it is installed."""
    if find_spec("cv_bridge") is None:
        return Bridge(False, frozenset(), "")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "dimm_ros.data.bridge"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _unusable(str(error))
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return _unusable(
            f"it ends its process by {name} under NumPy {np.__version__}, as one does that was built for NumPy 1"
        )
    if child.returncode:
        return _unusable((child.stderr.strip().splitlines() or ["it ends its process"])[-1])
    converts = frozenset(json.loads(child.stdout.splitlines()[-1]))
    return Bridge(True, converts, "") if converts else _unusable("it converts no encoding as it should")


def _unusable(reason: str) -> Bridge:
    return Bridge(
        True, frozenset(), f"cv_bridge is installed but cannot be used ({reason}); images are decoded without it."
    )


def agrees(convert: Callable[[Any, str], np.ndarray], encoding: str) -> bool:
    """Whether ``convert(message, "rgb8")`` makes of a small image of an encoding what ``decode_raw`` does.

    Args:
        convert: such as ``cv_bridge.CvBridge().imgmsg_to_cv2``.
    """
    height, width, step = 8, 12, 12 * PIXEL_BYTES[encoding]
    data = np.random.default_rng(0).integers(0, 256, height * step, dtype=np.uint8)
    message = SimpleNamespace(
        encoding=encoding, height=height, width=width, step=step, is_bigendian=0, data=data.tobytes()
    )
    try:
        expected = decode_raw(encoding, height, width, step, False, message.data)
        found = convert(message, "rgb8")
    except Exception:  # noqa: BLE001  see Bridge.convert
        return False
    return isinstance(found, np.ndarray) and found.dtype == np.uint8 and np.array_equal(found, expected)


def main() -> None:
    """In the child: print the encodings that are converted rightly, as JSON."""
    from cv_bridge import CvBridge

    convert = CvBridge().imgmsg_to_cv2
    print(json.dumps([encoding for encoding in sorted(PIXEL_BYTES) if agrees(convert, encoding)]))


if __name__ == "__main__":
    main()
