"""The walk through ``localize`` in docs/method.md names functions that are where it says, in the order in which they
are called.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import FrameType

import pytest

from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import patch_grid, subsampled
from dimm_ros.localizer import Localizer
from dimm_ros.scene_map import SceneMap

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = f"{ROOT / 'dimm_ros'}/"  # the checkout may be called so, too
WALK = (
    (ROOT / "docs" / "method.md").read_text(encoding="utf-8").split("## A walk through `localize`")[1].split("\n## ")[0]
)
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
    missing = [
        name
        for name, _, files in steps
        if not any(f"def {name}(" in (ROOT / "dimm_ros" / file).read_text() for file in files)
    ]
    assert len(steps) > 50 and not missing


@pytest.mark.parametrize("made", ["small_map", "landmark_map"])
def test_functions_are_called_in_the_order_of_the_walk(
    steps, made: str, request: pytest.FixtureRequest, walk: Path, encoder: Encoder
) -> None:
    frame = open_recording(walk).frames[4]
    image, localizer = frame.load(), Localizer(SceneMap.load(request.getfixturevalue(made)), encoder)
    called: list[tuple[str, str]] = []

    def progress(place: FrameType, event: str, _: object) -> None:
        if event == "call" and place.f_code.co_filename.startswith(PACKAGE):
            called.append((place.f_code.co_name, place.f_code.co_filename.removeprefix(PACKAGE)))

    localizer.localize(image, frame.camera)  # what is made once is made then, whatever ran in this process before
    for kept in (patch_grid, subsampled):  # but for these, of each camera, which the walk names
        kept.cache_clear()
    sys.setprofile(progress)
    try:
        localizer.localize(image, frame.camera)
    finally:
        sys.setprofile(None)
    at = 0
    for name, step, files in steps:
        of_landmarks = step == "landmarks" or files[0].startswith("landmarks/")
        if localizer.map.landmarks is not None or not of_landmarks:
            after = (
                place for place in range(at, len(called)) if called[place][0] == name and called[place][1] in files
            )
            at = next(after, None)
            assert at is not None, f"{name} is not called after what stands above it"
    named = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)", WALK)}
    assert not {
        (name, file) for name, file in called if name in _public(file) - named and not file.startswith(LEFT_OUT)
    }


def _public(file: str) -> set[str]:
    """Names of a file's public functions and methods, properties left out."""
    module = ast.parse((ROOT / "dimm_ros" / file).read_text(encoding="utf-8"))
    bodies = [module.body, *(each.body for each in module.body if isinstance(each, ast.ClassDef))]
    functions = [each for body in bodies for each in body if isinstance(each, ast.FunctionDef)]
    properties = {each for each in functions if any("property" in ast.unparse(one) for one in each.decorator_list)}
    return {each.name for each in functions if not each.name.startswith("_") and each not in properties}
