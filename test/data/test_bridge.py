"""cv_bridge is tried in a child process: what crashes, or converts wrongly, is known before it is used."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from dimm_ros.data import bridge as bridge_module
from dimm_ros.data.bridge import bridge
from dimm_ros.data.image_encoding import PIXEL_BYTES
from dimm_ros.doctor.installation import check_python

RIGHT = """
    from dimm_ros.data.image_encoding import decode_raw

    class CvBridge:
        def imgmsg_to_cv2(self, one, wanted):
            return decode_raw(one.encoding, one.height, one.width, one.step, bool(one.is_bigendian), one.data)
"""

#: As the one for NumPy 1 under NumPy 2: it can be imported, and ends the process with the first image.
CRASHES = """
    import os, signal

    class CvBridge:
        def imgmsg_to_cv2(self, one, wanted):
            os.kill(os.getpid(), signal.SIGSEGV)
"""

#: Noise on stdout, one encoding refused, one wrong, one of another type.
PARTLY = (
    RIGHT
    + """
    print("built for another NumPy")
    Right = CvBridge

    class CvBridge(Right):
        def imgmsg_to_cv2(self, one, wanted):
            if one.encoding == "yuyv":
                raise RuntimeError("unknown encoding")
            image = super().imgmsg_to_cv2(one, wanted)
            return {"bgr8": image[..., ::-1], "rgb16": image.astype("uint16")}.get(one.encoding, image)
"""
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a cv_bridge of this source and forgets what was known of the one before."""

    def install(source: str) -> None:
        (tmp_path / "cv_bridge.py").write_text(textwrap.dedent(source), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        bridge.cache_clear()

    bridge.cache_clear()
    yield install
    bridge.cache_clear()


def doctor() -> tuple[str, str]:
    """Severity and text of what the doctor says of Python."""
    (finding,) = check_python({"rmw": "rmw_fastrtps_cpp", "domain": "0"})
    return finding.severity.name, finding.what


def test_a_right_one_is_used(installed) -> None:
    installed(RIGHT)
    assert bridge().converts == set(PIXEL_BYTES) and bridge().trouble == ""
    assert doctor() == (
        "OK",
        f"NumPy {np.__version__}, cv_bridge works, for {len(PIXEL_BYTES)} encodings; rmw_fastrtps_cpp, domain 0",
    )


def test_one_that_crashes_is_named_and_this_process_lives(installed) -> None:
    installed(CRASHES)
    assert bridge().converts == set() and bridge().installed
    assert bridge().trouble.startswith(
        "cv_bridge is installed but cannot be used (it ends its process by SIGSEGV under NumPy"
    )
    assert doctor() == ("WARNING", bridge().trouble)


def test_one_that_cannot_be_imported_is_named(installed) -> None:
    installed("raise AttributeError('_ARRAY_API not found')")
    assert "(AttributeError: _ARRAY_API not found); images are decoded without it." in bridge().trouble


def test_one_that_answers_too_late_is_named(installed, monkeypatch) -> None:
    monkeypatch.setattr(bridge_module, "_TIMEOUT_S", 0.2)
    installed("import threading; threading.Event().wait()")
    assert "timed out after 0.2 seconds" in bridge().trouble


def test_what_it_converts_wrongly_is_not_left_to_it(installed) -> None:
    installed(PARTLY)
    assert set(PIXEL_BYTES) - bridge().converts == {"yuyv", "bgr8", "rgb16"}


def test_none_is_none(installed, monkeypatch) -> None:
    monkeypatch.setattr(bridge_module, "find_spec", lambda name: None)
    assert bridge() == bridge_module.Bridge(False, frozenset(), "")
    assert "no cv_bridge, none needed" in doctor()[1]
