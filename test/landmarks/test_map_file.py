"""Landmarks in the map file and in the work folder of a map in the making."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_maps import tiny_header, tiny_map

import dimm_ros.mapping.landmarks as making
from dimm_ros.config import LandmarkConfig
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.errors import MapError
from dimm_ros.geometry.camera import Camera
from dimm_ros.landmarks.build import BuiltLandmarks
from dimm_ros.landmarks.calibrate import LandmarkCalibration
from dimm_ros.landmarks.store import Landmarks, hide_in_lines
from dimm_ros.landmarks.warp import Warp
from dimm_ros.scene_map import LandmarkHeader, SceneMap

from .scenes import cloud, landmarks_of, looks

CALIBRATION = LandmarkCalibration(
    position_sigma=0.013, rotation_sigma_deg=0.2, frames=7, position_error=0.01, rotation_error_deg=0.1
)


def landmarks(kind: str = "points", count: int = 60) -> Landmarks:
    rng = np.random.default_rng(0)
    points = landmarks_of(cloud(rng, count), looks(rng, count))
    return points if kind == "points" else hide_in_lines(points, 1)


def warped(kind: str = "points") -> Landmarks:
    rng = np.random.default_rng(1)
    poses, errors = (rng.normal(size=(3, 6)).astype(np.float32) for _ in range(2))
    return replace(landmarks(kind), warp=Warp(poses, errors, 0.25))


def header(kind: str = "points", **changes: object) -> LandmarkHeader:
    fields = {
        "kind": kind,
        "detector": "sift",
        "longest": 1024,
        "keypoints": 2500,
        "dim": 128,
        "count": 60,
        "images": 24,
    }
    return LandmarkHeader(**fields | {"calibration": CALIBRATION} | changes)


def saved(path: Path, kind: str = "points") -> Path:
    tiny = tiny_map(landmarks=header(kind))
    SceneMap(tiny.header, tiny.head, landmarks(kind)).save(path)
    return path


def spoilt(path: Path, tensors=lambda _: None, fields=lambda _: None) -> Path:
    with safe_open(str(path), "pt") as file:
        told = json.loads(file.metadata()["dimm_map"])
    held = load_file(path)
    tensors(held)
    fields(told)
    save_file(held, path, {"dimm_map": json.dumps(told)})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(MapError) as told:
        SceneMap.load(path)
    sentence = str(told.value)
    assert "\n" not in sentence and sentence.count(". ") == 0 and str(path) in sentence
    return sentence


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_landmarks_come_back_bit_by_bit(tmp_path: Path, kind: str) -> None:
    loaded = SceneMap.load(saved(tmp_path / "a.dimm", kind))
    assert loaded.header.landmarks == header(kind) and loaded.landmarks.kind == kind
    for name, array in landmarks(kind).arrays().items():
        back = loaded.landmarks.arrays()[name]
        assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()
    loaded.save(tmp_path / "b.dimm")
    again = SceneMap.load(tmp_path / "b.dimm").landmarks
    assert all(array.tobytes() == again.arrays()[name].tobytes() for name, array in loaded.landmarks.arrays().items())


@pytest.mark.parametrize("changes", [{"count": 61}, {"count": 9_000_000}, {"kind": "lines"}], ids=str)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, changes: dict) -> None:
    path = spoilt(saved(tmp_path / "a.dimm"), fields=lambda told: told["landmarks"].update(changes))
    kind = changes.get("kind", "points")
    assert f"does not hold the {changes.get('count', 60)} landmarks ({kind}) that its header describes" in refusal(path)


def test_descriptors_that_no_detector_makes_are_refused(tmp_path: Path) -> None:
    """Sizes that agree with each other, and with no keypoint of any image."""

    def short(held: dict) -> None:
        held["landmarks.descriptors"] = held["landmarks.descriptors"][:, :64].contiguous()

    path = spoilt(saved(tmp_path / "a.dimm"), short, lambda told: told["landmarks"].update(dim=64))
    assert "descriptors of 64 entries, those of 'sift' have 128" in refusal(path)
    path = spoilt(saved(tmp_path / "b.dimm"), fields=lambda told: told["landmarks"].update(detector="orb"))
    assert "keypoints of 'orb', this dimm_ros knows sift" in refusal(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: held.pop("landmarks.views"),
        lambda held: held.update({"landmarks.more": torch.zeros(3)}),
        lambda held: held.update({"landmarks.places": held["landmarks.places"].double()}),
        lambda held: held["landmarks.places"].fill_(float("nan")),
        lambda held: held["landmarks.seen_from"].fill_(float("inf")),
        lambda held: held.update({"landmarks.descriptors": held["landmarks.descriptors"][:30].contiguous()}),
    ],
    ids=["missing", "unknown", "dtype", "nan", "infinite", "short"],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, spoil) -> None:
    path = spoilt(saved(tmp_path / "a.dimm"), spoil)
    assert "does not hold the 60 landmarks (points) that its header describes" in refusal(path)


def test_landmarks_without_a_header_are_refused(tmp_path: Path) -> None:
    path = spoilt(saved(tmp_path / "a.dimm"), fields=lambda told: told.update(landmarks=None))
    assert "holds landmarks that its header does not describe" in refusal(path)


def test_a_map_from_before_landmarks_still_loads(tmp_path: Path) -> None:
    tiny_map().save(tmp_path / "old.dimm")

    def older(told: dict) -> None:
        del told["landmarks"]
        told["format_version"] = 4

    loaded = SceneMap.load(spoilt(tmp_path / "old.dimm", fields=older))
    assert loaded.landmarks is None and loaded.header.landmarks is None and loaded.header.name == tiny_header().name


def recording(shift: float = 0.0) -> Recording:
    pose = np.eye(4)
    frames = []
    for index in range(3):
        pose = pose.copy()
        pose[0, 3] += 0.1 + (shift if index == 1 else 0.0)
        frames.append(
            Frame(
                f"{index}.png",
                index,
                Camera(64, 48, 50.0, 50.0, 31.5, 23.5),
                pose,
                lambda: np.zeros((48, 64, 3), np.uint8),
            )
        )
    return Recording("walk", "walk", frames)


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_the_work_folder_keeps_them_for_the_same_recording_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made, calls = BuiltLandmarks(landmarks(kind), CALIBRATION, 3, 1.5), []

    def build(*arguments: object) -> BuiltLandmarks:
        calls.append(arguments)
        return made

    monkeypatch.setattr(making, "build_landmarks", build)
    config, origin = LandmarkConfig(kind=kind), np.array([1.0, 2.0, 3.0])

    def asked(of: Recording = recording(), where: np.ndarray = origin, how: LandmarkConfig = config) -> BuiltLandmarks:
        return making.landmarks_of(tmp_path, of, where, how, lambda *_: False)

    assert asked() is made and len(calls) == 1
    kept = asked(recording())
    assert len(calls) == 1 and (kept.calibration, kept.images, kept.seconds) == (CALIBRATION, 3, 1.5)
    assert all(
        array.tobytes() == made.landmarks.arrays()[name].tobytes() for name, array in kept.landmarks.arrays().items()
    )
    for number, change in enumerate(
        (
            {"of": recording(0.001)},
            {"where": origin + 0.01},
            {"how": config.changed(keypoints=1000)},
            {"of": replace(recording(), frames=recording().frames[:2])},
        ),
        2,
    ):
        asked(**change)
        assert len(calls) == number
    (tmp_path / "landmarks.safetensors").write_bytes(b"damaged")
    assert asked() is made
    assert asked(how=LandmarkConfig(kind="none")).landmarks is None


def test_what_was_stopped_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "build_landmarks", lambda *_: None)
    assert making.landmarks_of(tmp_path, recording(), np.zeros(3), LandmarkConfig(), lambda *_: True) is None
    assert not list(tmp_path.iterdir())


def test_why_there_are_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = BuiltLandmarks(None, LandmarkCalibration(), 3, 0.1, "The images show only 2 landmarks.")
    monkeypatch.setattr(making, "build_landmarks", lambda *_: nothing)
    assert making.landmarks_of(tmp_path, recording(), np.zeros(3), LandmarkConfig(), lambda *_: False) is nothing
    assert [record.getMessage() for record in caplog.records] == [nothing.note] and caplog.records[
        0
    ].levelname == "WARNING"
    assert making.landmark_header(nothing, LandmarkConfig()) is None


def test_merged_errors_are_the_largest() -> None:
    headers = [
        SimpleNamespace(landmarks=header(calibration=LandmarkCalibration(position_sigma=sigma, widened=widened)))
        for sigma, widened in ((0.05, 1.0), (0.02, 1.3))
    ]
    merged = making.merged_landmark_header(headers, landmarks()).calibration
    assert (merged.position_sigma, merged.widened) == (0.05, 1.3)


def test_one_landmark_lies_within_what_poses_err_by() -> None:
    """Of a map whose errors have heavy tails it may be further away."""
    one, wide = (LandmarkCalibration(position_sigma=0.05, widened=by) for by in (1.0, 1.2))
    near = replace(landmarks(), seen_from=np.tile([1, 0, 0, 1, 2, 2], (len(landmarks()), 1)).astype(np.float16))
    assert making.one_landmark_within([near], [one], 1.0) == pytest.approx(5 * 0.05)
    assert making.one_landmark_within([near, near], [one, wide], 1.0) == pytest.approx(5 * 0.05 * 1.2)
    assert making.one_landmark_within([near], [LandmarkCalibration(position_sigma=0)], 1.0) == pytest.approx(0.04)


def test_how_errors_grew_in_maps_of_format_6_is_left_out(tmp_path: Path) -> None:
    path = spoilt(
        saved(tmp_path / "a.dimm"), fields=lambda told: told["landmarks"]["calibration"].update(strangeness=0.1)
    )
    assert SceneMap.load(path).header.landmarks.calibration == CALIBRATION


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_the_warp_comes_back_and_is_merged(tmp_path: Path, kind: str) -> None:
    tiny = tiny_map(landmarks=header(kind).describing(warped(kind)))
    SceneMap(tiny.header, tiny.head, warped(kind)).save(tmp_path / "a.dimm")
    loaded = SceneMap.load(tmp_path / "a.dimm")
    told = loaded.header.landmarks
    assert (told.warp, told.warp_reach, len(loaded.landmarks.warp)) == (3, 0.25, 3)
    for name in ("poses", "errors"):
        assert np.array_equal(getattr(loaded.landmarks.warp, name), getattr(warped(kind).warp, name))
    assert len(Landmarks.joined([loaded.landmarks, loaded.landmarks]).warp) == 6
    # What one recording's poses are off does not go for another's landmarks, of which nothing is known.
    assert Landmarks.joined([loaded.landmarks, landmarks(kind)]).warp is None
    with pytest.raises(ValueError, match="other landmarks"):
        SceneMap(tiny.header, tiny.head, landmarks(kind)).save(tmp_path / "b.dimm")


def test_landmarks_and_a_header_without_each_other_are_not_saved(tmp_path: Path) -> None:
    """The file could not be read again."""
    with_header, without = tiny_map(landmarks=header()), tiny_map()
    for scene_map in (
        SceneMap(with_header.header, with_header.head, None),
        SceneMap(without.header, without.head, landmarks()),
    ):
        with pytest.raises(ValueError, match="other landmarks"):
            scene_map.save(tmp_path / "a.dimm")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: held.pop("landmarks.warp_errors"),
        lambda held: held.update({"landmarks.warp_poses": held["landmarks.warp_poses"][:2].contiguous()}),
        lambda held: held["landmarks.warp_errors"].fill_(float("nan")),
    ],
    ids=["missing", "short", "nan"],
)
def test_a_warp_that_does_not_fit_is_refused(tmp_path: Path, spoil) -> None:
    tiny = tiny_map(landmarks=header().describing(warped()))
    SceneMap(tiny.header, tiny.head, warped()).save(tmp_path / "a.dimm")
    assert "does not hold the 60 landmarks (points) that its header describes" in refusal(
        spoilt(tmp_path / "a.dimm", spoil)
    )
    long = spoilt(saved(tmp_path / "b.dimm"), fields=lambda told: told["landmarks"].update(warp=10**9))
    assert "cannot be read" in refusal(long)
