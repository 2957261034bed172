"""The work folder: one process at a time, and nothing of other images, of another version, or damaged, is gone on
from.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import dimm_ros.mapping.build as build
import dimm_ros.mapping.landmarks as mapping_landmarks
from dimm_ros.cli.main import app
from dimm_ros.config import EncoderConfig, LandmarkConfig, TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.errors import BusyError
from dimm_ros.geometry.camera import Camera
from dimm_ros.landmarks.build import BuiltLandmarks
from dimm_ros.landmarks.calibrate import LandmarkCalibration
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.mapping.build import build_map, locked, open_buffer, work_folder
from dimm_ros.mapping.features import FeatureBuffer

CAMERA = Camera(28, 28, 20.0, 20.0, 13.5, 13.5)
ENCODER = SimpleNamespace(
    config=EncoderConfig(input_size=56), dim=4, context_dim=6, weights=SimpleNamespace(sha256="ab" * 32)
)
TRAINING = TrainingConfig(passes=1)


def test_two_builds_of_one_map_do_not_meet(tmp_path: Path, walk: Path, encoder) -> None:
    output = tmp_path / "map.dimm"
    with locked(work_folder(output)):
        (work_folder(output) / "features").mkdir()
        with pytest.raises(
            BusyError,
            match="Another process is making .*map.dimm at this moment; wait until it has ended, or give another file",
        ):
            build_map(open_recording(walk), output, encoder)
        assert (work_folder(output) / "features").is_dir()  # the other's
        told = CliRunner().invoke(app, ["map", str(walk), "-o", str(output), "--input-size", "224"])
        assert told.exit_code == 1 and "Another process" in told.stderr and "is kept in" not in told.stderr
    with locked(work_folder(output)):
        pass


def test_a_lock_on_a_folder_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process before removes the folder when its map is complete, perhaps between the opening and the locking of
    the file.
    """
    work, lock, calls = tmp_path / "map.dimm.work", fcntl.flock, []

    def flock(handle: int, how: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            shutil.rmtree(work)
        lock(handle, how)

    monkeypatch.setattr(build.fcntl, "flock", flock)
    with locked(work):
        assert len(calls) == 2 and os.path.samestat(os.fstat(calls[-1]), (work / "lock").stat())
        with pytest.raises(BusyError), locked(work):
            pass
        shutil.rmtree(work)
        with locked(work):  # a new folder, hence a new lock
            pass


def test_where_files_cannot_be_locked_maps_are_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(build.fcntl, "flock", flock)
    with locked(tmp_path / "map.dimm.work"), locked(tmp_path / "map.dimm.work"):
        pass


def _recording(folder: Path) -> Recording:
    """Two frames with files of their own, of an image and of a depth image each."""
    frames = []
    for number in range(2):
        files = tuple(folder / f"{kind}_{number}.png" for kind in ("colour", "depth"))
        for file in files:
            if not file.exists():
                file.write_bytes(b"pixels")
                os.utime(file, ns=(0, 1_000_000_000))
        frames.append(
            Frame(
                str(number),
                number,
                CAMERA,
                np.eye(4),
                lambda: np.zeros((28, 28, 3), np.uint8),
                lambda: np.ones((28, 28), np.float32),
                CAMERA,
                files,
            )
        )
    return Recording("two", "two", frames)


def _buffer(folder: Path, recording: Recording) -> FeatureBuffer:
    return open_buffer(folder / "features", recording, ENCODER, TRAINING)


def _begun(folder: Path) -> FeatureBuffer:
    buffer = _buffer(folder, _recording(folder))
    buffer.append(0, np.eye(4), np.ones((5, 4)), np.ones(6), np.ones((5, 3)))
    buffer.save()
    return buffer


def _other_pixels(folder: Path) -> None:
    (folder / "colour_1.png").write_bytes(b"others")
    assert (folder / "colour_1.png").stat().st_size == 6


def _other_size(folder: Path) -> None:
    file = folder / "colour_1.png"
    file.write_bytes(b"more pixels")
    os.utime(file, ns=(0, 1_000_000_000))


def _other_depth(folder: Path) -> None:
    (folder / "depth_0.png").write_bytes(b"deeper")


@pytest.mark.parametrize("change", [_other_pixels, _other_size, _other_depth])
def test_other_images_under_the_same_names_are_others(tmp_path: Path, change: Callable[[Path], None]) -> None:
    _begun(tmp_path)
    assert _buffer(tmp_path, _recording(tmp_path)).done == 1
    change(tmp_path)
    assert _buffer(tmp_path, _recording(tmp_path)).done == 0


@pytest.mark.parametrize("change", [{"load_depth": None}, {"depth_camera": Camera(28, 28, 21.0, 20.0, 13.5, 13.5)}])
def test_depth_that_came_or_went_makes_other_views(tmp_path: Path, change: dict) -> None:
    _begun(tmp_path)
    recording = _recording(tmp_path)
    assert (
        _buffer(tmp_path, replace(recording, frames=[replace(frame, **change) for frame in recording.frames])).done == 0
    )


def test_another_version_makes_other_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _begun(tmp_path)
    monkeypatch.setattr(build, "__version__", "0.0.1")
    assert _buffer(tmp_path, _recording(tmp_path)).done == 0


def test_landmarks_of_other_images_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = Landmarks(
        "points",
        np.ones((3, 3), np.float32),
        np.ones((3, 8), np.uint8),
        np.ones(3, np.uint8),
        np.ones((3, 6), np.float16),
    )
    made: list[int] = []

    def build_landmarks(*_: object) -> BuiltLandmarks:
        made.append(1)
        return BuiltLandmarks(places, LandmarkCalibration(), 2, 0.5)

    def kept() -> int:
        found = mapping_landmarks.landmarks_of(
            tmp_path / "work", _recording(tmp_path), np.zeros(3), LandmarkConfig(), lambda *_: False
        )
        assert found.seconds == 0.5 and np.array_equal(found.landmarks.places, places.places)
        return len(made)

    monkeypatch.setattr(mapping_landmarks, "build_landmarks", build_landmarks)
    assert [kept(), kept()] == [1, 1]
    for number, change in enumerate((_other_pixels, _other_size, _other_depth), start=2):
        change(tmp_path)
        assert [kept(), kept()] == [number, number]
    monkeypatch.setattr(mapping_landmarks, "__version__", "0.0.1")
    assert kept() == 5
    file = tmp_path / "work" / "landmarks.safetensors"
    for about in ("[]", "[" * 100_000, '{"mark": 3}'):
        save_file(load_file(file), file, {"landmarks": about})
        assert kept() == len(made)
    assert len(made) == 8


def test_the_files_of_a_bag_tell_of_its_images(walk: Path) -> None:
    files = open_recording(walk).frames[0].files
    assert files and all(file.is_file() and file.suffix in (".mcap", ".db3") for file in files)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"3",
        b"null",
        b"",
        b"\xff",
        b"{}",
        b"[" * 100_000,
        b'{"fingerprint": FINGERPRINT, "done": -1, "rows": 5, "seconds": 1}',
        b'{"fingerprint": FINGERPRINT, "done": 1, "rows": 1e400, "seconds": 1}',
        b'{"fingerprint": FINGERPRINT, "done": 3, "rows": 5, "seconds": 1}',
        b'{"fingerprint": FINGERPRINT, "done": 1, "rows": 50000, "seconds": 1}',
    ],
)
def test_a_damaged_progress_file_is_begun_anew(tmp_path: Path, text: bytes) -> None:
    mark = _begun(tmp_path).fingerprint
    (tmp_path / "features" / "progress.json").write_bytes(text.replace(b"FINGERPRINT", f'"{mark}"'.encode()))
    buffer = _buffer(tmp_path, _recording(tmp_path))
    assert (buffer.done, buffer.rows, buffer.seconds) == (0, 0, 0.0)
    buffer.append(0, np.eye(4), np.ones((5, 4)), np.ones(6), np.ones((5, 3)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes()[:-4]),
        lambda file: np.save(file, np.zeros((3, 4), np.float16)),
    ],
)
def test_damaged_arrays_are_begun_anew(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    _begun(tmp_path)
    assert _buffer(tmp_path, _recording(tmp_path)).done == 1
    spoil(tmp_path / "features" / "patches.npy")
    assert _buffer(tmp_path, _recording(tmp_path)).done == 0
