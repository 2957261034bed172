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
WALK = (ROOT / "docs" / "method.md").read_text(encoding="utf-8").split("## A walk through `localize`")[1].split("\n## ")[0]
#: What the walk says that it leaves out.
LEFT_OUT = ("geometry/", "runtime/clock.py")


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str, list[str]]]:
    """Each function of the table, the step that it belongs to, and the files that it may stand in."""
    result, files, step = [], [], ""
    for line in WALK.splitlines():
        if line.startswith("|") and "`" in line:
            _, named_step, functions, named, *_ = line.split("|")
            files, step = re.findall(r"`([^`]+)`", named) or files, named_step.strip() or step
            result += [(name.rpartition(".")[2], step, files) for name in re.findall(r"`([^`]+)`", functions)]
    return result


def test_every_function_is_in_its_file(steps) -> None:
    missing = [name for name, _, files in steps if not any(f"def {name}(" in (ROOT / "dimm_ros" / file).read_text() for file in files)]
    assert len(steps) > 50 and not missing


@pytest.mark.parametrize("made", ["small_map", "landmark_map"])
def test_functions_are_called_in_the_order_of_the_walk(
    steps, made: str, request: pytest.FixtureRequest, walk: Path, encoder: Encoder,
) -> None:
    frame = open_recording(walk).frames[4]
    image, localizer = frame.load(), Localizer(SceneMap.load(request.getfixturevalue(made)), encoder)
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
    at = 0
    for name, step, files in steps:
        of_landmarks = step == "landmarks" or files[0].startswith("landmarks/")
        if localizer.map.landmarks is not None or not of_landmarks:
            after = (place for place in range(at, len(called)) if called[place][0] == name and called[place][1] in files)
            at = next(after, None)
            assert at is not None, f"{name} is not called after what stands above it"
    named = {name.rpartition(".")[2] for name in re.findall(r"`([^`]+)`", WALK)}
    public = {(name, file) for name, file in called if re.search(rf"^(?:    )?def {name}\(", _functions(file), re.M)}
    assert not {each for each in public if each[0] not in named and not each[1].startswith(LEFT_OUT)}


def _functions(file: str) -> str:
    """A file without its properties and private functions."""
    return re.sub(r"@(cached_)?property\n +def \w+|def _\w+", "", (ROOT / "dimm_ros" / file).read_text(encoding="utf-8"))
