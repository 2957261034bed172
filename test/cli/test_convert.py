"""``dimm convert`` as a person uses it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dimm_ros.cli.main import app
from dimm_ros.data import folder
from dimm_ros.data.image_file import load_rgb
from dimm_ros.data.open import open_recording

HEIGHT, WIDTH = 24, 32


def scene(place: Path, frames: int = 5) -> Path:
    """A 7-Scenes folder whose first frames are for training."""
    place.mkdir()
    for number in range(frames):
        cv2.imwrite(str(place / f"frame-{number:06d}.color.png"), np.full((HEIGHT, WIDTH, 3), number % 256, np.uint8))
        pose = np.eye(4)
        pose[:3, 3] = number, 2, 3
        np.savetxt(place / f"frame-{number:06d}.pose.txt", pose)
    np.savetxt(place / "camera-intrinsics.txt", [[30, 0, 16], [0, 31, 12], [0, 0, 1]])
    (place / "split.json").write_text('{"train": [0, 1, 2], "val": [3, 4]}')
    return place


def convert(*words: object):
    return CliRunner().invoke(app, ["convert", *map(str, words)], catch_exceptions=True)


@pytest.mark.parametrize(
    ("words", "images", "topic"),
    [
        ([], 5, "/camera/image_raw/compressed"),
        (["--split", "val", "--images", "png"], 2, "/camera/image_raw/compressed"),
        (["--images", "raw", "--storage", "sqlite3"], 5, "/camera/image_raw"),
    ],
)
def test_converts(words, images, topic, tmp_path):
    source, bag = scene(tmp_path / "kitchen"), tmp_path / "bags" / "kitchen_bag"
    result = convert(source, bag, *words)
    assert result.exit_code == 0, result.output
    assert f"7-Scenes folder kitchen: {images} images -> " in result.output
    recording = open_recording(bag)
    assert recording.source.endswith(topic) and len(recording.frames) == images
    np.testing.assert_allclose(recording.poses()[:, 0, 3], [3, 4] if "val" in words else range(5))
    result = convert(source, bag)
    assert result.exit_code == 1 and "exists already" in result.stderr
    assert convert(bag, bag, "--overwrite", "--images", "png").exit_code == 0  # a bag may be rewritten in place
    assert len(open_recording(bag).frames) == images


def test_another_unit_becomes_metres(tmp_path):
    result = convert(scene(tmp_path / "kitchen"), tmp_path / "bag", "--scale", "0.001")
    assert result.exit_code == 0, result.output
    poses = open_recording(tmp_path / "bag").poses()
    np.testing.assert_allclose(poses[:, :3, 3], [[0.001 * number, 0.002, 0.003] for number in range(5)], atol=1e-12)
    np.testing.assert_allclose(poses[:, :3, :3], np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-9)


def test_wrong_source_writes_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, words in (
        ("empty", "is empty; give a ROS bag or a folder in a known layout (7-Scenes, 12-Scenes"),
        ("absent", "does not exist"),
    ):
        result = convert(tmp_path / source, tmp_path / "bag")
        assert result.exit_code == 1 and words in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch):
    loaded = []

    def load(path: Path, camera):
        if len(loaded) == 3:
            assert list((tmp_path / "bags").glob(".bag.*/bag/*.mcap"))  # the bag is being written
            os.kill(os.getpid(), signal.SIGINT)
        loaded.append(path)
        return load_rgb(path, camera)

    monkeypatch.setattr(folder, "load_rgb", load)
    result = convert(scene(tmp_path / "kitchen"), tmp_path / "bags" / "bag")
    assert (result.exit_code, len(loaded)) == (130, 3)
    assert list((tmp_path / "bags").iterdir()) == []
