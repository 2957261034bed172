"""What a map is, told and drawn."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dimm_ros.config import PRESETS
from dimm_ros.data.coverage import ViewCoverage
from dimm_ros.data.open import open_recording
from dimm_ros.errors import DataError, MapError
from dimm_ros.evaluation.map_figures import mapped_poses
from dimm_ros.evaluation.map_info import map_info, preset_of_map, table
from dimm_ros.evaluation.map_report import write_map_report
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.merge import merge_maps
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.mapping.sources import source_of
from dimm_ros.scene_map import LandmarkHeader, SceneMap


def pictures(page: Path) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page.read_text())
    return [cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR) for one in found]


def test_info_says_what_the_map_is(small_map: Path, walk: Path, encoder) -> None:
    info, poses = map_info(small_map), open_recording(walk).poses()
    centres = poses[:, :3, 3]
    assert info["images"] == 24 and "walk" in info["sources"][0]["name"]
    assert info["format"] == 7 and info["name"] == "gallery"
    assert info["encoder"]["sha256"] == encoder.weights.sha256 and info["encoder"]["input_size"] == 224
    assert (
        info["preset"] in PRESETS
        and info["preset_changes"]["training.steps"] == 400
        and info["preset_changes"]["head.width"] == 128
    )
    np.testing.assert_allclose(info["coverage"]["extent_m"], np.ptp(centres, axis=0))
    assert info["coverage"]["path_m"] == pytest.approx(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())
    assert sum(info["coverage"]["headings"]) == 24 and info["coverage"]["up"] == "+z"
    assert sum(info["bytes_per_part"].values()) == info["bytes"] == small_map.stat().st_size
    assert info["bytes_per_part"]["head"] > 100_000 and 0 < info["bytes_per_part"]["header"] < 20_000
    assert list(info["beside"]) == ["gallery.dimm.retrieval.safetensors"]
    assert json.loads(json.dumps(info)) == json.loads(json.dumps(info, allow_nan=False))
    console = Console(file=StringIO(), width=160)
    console.print(table(info))
    for words in (
        "licence: not said",
        "no frames were held out",
        "dinov2-small",
        "training.steps = 400",
        "global pose",
        "24 images",
    ):
        assert words in console.file.getvalue()


def test_presets_are_recognised(small_map: Path) -> None:
    header = SceneMap.load(small_map).header
    for name, preset in PRESETS.items():
        made = header.model_copy(update={part: getattr(preset, part) for part in ("encoder", "head", "training")})
        if preset.landmarks.kind != "none":
            found = {name: getattr(preset.landmarks, name) for name in ("kind", "detector", "longest", "keypoints")}
            made = made.model_copy(update={"landmarks": LandmarkHeader(**found, dim=128, count=900, images=24)})
        assert preset_of_map(made) == (name, {})
    changed = made.model_copy(update={"training": made.training.changed(steps=3, seed=7)})
    assert preset_of_map(changed)[1] == {"training.steps": 3}


def test_a_recording_with_times_gives_dates_and_licence(walk: Path) -> None:
    recording = open_recording(walk)
    counted = [replace(frame, stamp_ns=number) for number, frame in enumerate(recording.frames)]
    assert source_of(replace(recording, frames=counted)).recorded is None and source_of(recording).licence is None
    day = 86400 * 10**9
    frames = [
        replace(frame, stamp_ns=20000 * day + number * day // 12) for number, frame in enumerate(recording.frames)
    ]
    source = source_of(replace(recording, frames=frames), "CC-BY-4.0")
    assert source.recorded == ("2024-10-04", "2024-10-05") and source.licence == "CC-BY-4.0"


def sectors(forward: np.ndarray, axes: tuple[int, int, int], up_sign: int) -> np.ndarray:
    return ViewCoverage(axes=axes, up_sign=up_sign, spacing=np.empty(0), thin=np.empty(0, bool)).sectors(forward)


def test_headings_turn_counter_clockwise_about_up() -> None:
    angle = np.radians([0, 44, 90, 180, -90])
    flat = np.stack([np.cos(angle), np.sin(angle), np.zeros(5)], axis=1)
    assert sectors(flat, (0, 1, 2), 1).tolist() == [0, 1, 2, 4, 6] and sectors(flat, (0, 1, 2), -1).tolist() == [
        0,
        7,
        6,
        4,
        2,
    ]
    lying = flat[:, [0, 2, 1]]  # y is up: x, z, y is left-handed
    assert sectors(lying, (0, 2, 1), 1).tolist() == [0, 7, 6, 4, 2]


def test_maps_with_what_has_since_been_dropped_localize(small_map: Path, tmp_path: Path, walk: Path, encoder) -> None:
    """Formats 4 and 5: a network told the whole image's rotation, and the training had more options."""
    with safe_open(str(small_map), "pt") as file:
        header = json.loads(file.metadata()["dimm_map"])
    header["format_version"] = 5
    header["head"] |= {"turn_width": 16, "turn_least": 0.6}
    header["training"] |= {
        "context_noise": 0.1,
        "context_dropout": 0.1,
        "context_mix": 0.0,
        "loss": "laplace",
        "average": 0.99,
    }
    width, path = header["head"]["width"], tmp_path / "old.dimm"
    turn = {
        "turn.0.weight": torch.ones(2 * width),
        "turn.2.weight": torch.ones(16, 2 * width),
        "turn.5.bias": torch.zeros(9),
    }
    save_file(load_file(small_map) | turn, path, {"dimm_map": json.dumps(header)})
    old, frame = SceneMap.load(path), open_recording(walk).frames[8]
    estimate = Localizer(old, encoder).localize(frame.load(), frame.camera)
    distance, angle = pose_errors(estimate.world_from_camera, frame.world_from_camera)
    assert estimate.accepted and distance < 0.15 and angle < 5.0


def test_maps_of_the_first_readable_format_are_read(small_map: Path, tmp_path: Path) -> None:
    with safe_open(str(small_map), "pt") as file:
        header = json.loads(file.metadata()["dimm_map"])
    header |= {"format_version": 2, "sources": [{"name": "walk", "frames": 24}]}
    header["calibration"] = {
        "position_factor": 3.0,
        "rotation_factor": 2.0,
        "position_growth": 1.0,
        "max_novelty": 0.5,
        "frames": 40,
    }
    for field in ("curves", "parts"):
        del header[field]
    later = ("whole.ridge", "whole.bandwidth")
    tensors = {name: value for name, value in load_file(small_map).items() if not name.startswith(later)}
    path = tmp_path / "old.dimm"
    save_file(tensors, path, {"dimm_map": json.dumps(header)})
    info = map_info(path)
    assert info["format"] == 2 and info["coverage"] is None
    assert info["held_out"] == {"frames": 40, "median_position_m": None, "median_rotation_deg": None}
    page = tmp_path / "old.html"
    write_map_report(path, page)
    assert len(pictures(page)) == 1 and "which kept no curve" in page.read_text()


def test_report_without_data_draws_coverage_and_curve(small_map: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "map.html"
    info = write_map_report(small_map, page)
    assert info["data"] == [] and [path.name for path in page.parent.iterdir()] == ["map.html"]
    drawn = pictures(page)
    assert len(drawn) == 2 and all(picture.std() > 5 for picture in drawn)
    assert "<script" not in page.read_text() and "http" not in page.read_text()  # needs nothing but itself


def test_report_with_data_judges_it(small_map: Path, walk: Path, tmp_path: Path) -> None:
    recording = open_recording(walk)
    recording = replace(recording, name="a <b> walk", frames=recording.frames[::4])
    page = tmp_path / "map.html"
    info = write_map_report(small_map, page, [recording])
    figures = info["data"][0]
    assert figures["frames"] == 6 and figures["answered"] >= 4 and figures["median_translation_m"] < 0.3
    text = page.read_text()
    assert (
        len(pictures(page)) == 2 + 2 + 3
        and "a &lt;b&gt; walk" in text
        and "median error" in text
        and "Worst frames" in text
    )


def test_coverage_comes_from_the_map_itself_where_nothing_is_beside_it(
    small_map: Path, walk: Path, tmp_path: Path
) -> None:
    poses = open_recording(walk).poses()
    header = SceneMap.load(small_map).header
    beside = mapped_poses(SceneMap.load(small_map), ReferenceViews.load(small_map, header))
    np.testing.assert_allclose(beside, poses)
    np.testing.assert_allclose(mapped_poses(SceneMap.load(small_map), None), poses, atol=5e-3)
    merged = merge_maps([small_map, small_map], tmp_path / "twice.dimm")
    np.testing.assert_allclose(mapped_poses(SceneMap.load(merged), None), np.concatenate([poses, poses]), atol=5e-3)


def test_bad_input_is_one_sentence(small_map: Path, walk: Path, tmp_path: Path) -> None:
    recording = replace(open_recording(walk), frame_id="attic")
    with pytest.raises(DataError, match="poses in frame 'attic', map 'gallery' is in 'map'"):
        write_map_report(small_map, tmp_path / "map.html", [recording])
    with pytest.raises(MapError, match="does not exist"):
        write_map_report(tmp_path / "absent.dimm", tmp_path / "map.html")
    with pytest.raises(MapError, match="cannot be written"):
        write_map_report(small_map, Path("/proc/nowhere/map.html"))
    shutil.copy(walk / "metadata.yaml", tmp_path / "fake.dimm")
    with pytest.raises(MapError, match="damaged or not a map"):
        map_info(tmp_path / "fake.dimm")
    assert [path.name for path in tmp_path.iterdir()] == ["fake.dimm"]
