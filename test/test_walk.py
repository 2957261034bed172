"""The walk through ``localize`` in docs/method.md names functions that are where it says, in the order in which they are called."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType

import pytest

from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import patch_grid, thinned
from dimm_ros.localizer import Localizer
from dimm_ros.scene_map import SceneMap

ROOT = Path(__file__).resolve().parents[1]
OF_LANDMARKS = ("find_keypoints", "join_landmarks", "locate")


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, list[str]]]:
    """Each function of the table, and the files that it may stand in."""
    text = (ROOT / "docs" / "method.md").read_text().split("## A walk through `localize`")[1].split("\n## ")[0]
    result, files = [], []
    for line in text.splitlines():
        if line.startswith("|") and "`" in line:
            _, _, functions, named, *_ = line.split("|")
            files = re.findall(r"`([^`]+)`", named) or files
            result += [(name.rpartition(".")[2], files) for name in re.findall(r"`([^`]+)`", functions)]
    return result


def test_every_function_is_in_its_file(steps) -> None:
    missing = [name for name, files in steps if not any(f"def {name}(" in (ROOT / "dimm_ros" / file).read_text() for file in files)]
    assert len(steps) > 15 and not missing


def test_functions_are_called_in_the_order_of_the_walk(steps, small_map: Path, walk: Path, encoder: Encoder) -> None:
    frame = open_recording(walk).frames[4]
    image, localizer = frame.load(), Localizer(SceneMap.load(small_map), encoder)
    called: list[tuple[str, str]] = []

    def watch(place: FrameType, event: str, _: object) -> None:
        if event == "call" and "dimm_ros/" in place.f_code.co_filename:
            called.append((place.f_code.co_name, place.f_code.co_filename.rsplit("dimm_ros/", 1)[1]))

    for kept in (patch_grid, thinned):  # for each camera, from earlier calls
        kept.cache_clear()
    sys.setprofile(watch)
    try:
        localizer.localize(image, frame.camera)
    finally:
        sys.setprofile(None)
    order = []
    for name, files in steps:
        if localizer.map.landmarks is not None or name not in OF_LANDMARKS:
            order.append((next((at for at, (other, file) in enumerate(called) if other == name and file in files), None), name))
    assert not [name for at, name in order if at is None]
    assert order == sorted(order)
