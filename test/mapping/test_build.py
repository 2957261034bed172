"""Building a map: it learns, it can be stopped and gone on with, and its file is data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dimm_ros.config import HeadConfig, TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.errors import DataError, MapError
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.build import build_map
from dimm_ros.mapping.calibrate import held_out_frames
from dimm_ros.mapping.trainer import Normalisation, learning_rate
from dimm_ros.scene_map import FORMAT_VERSION, SceneMap

HEAD = HeadConfig(mappers=2, width=48, depth=1)
SHORT = TrainingConfig(steps=12, batch=128, passes=2)


def test_a_map_knows_the_images_it_was_made_from(small_map: Path, walk: Path) -> None:
    localizer = Localizer.open(small_map, device="cpu")
    frames = open_recording(walk).frames[::4]
    errors = [
        pose_errors(localizer.localize(frame.load(), frame.camera).world_from_camera, frame.world_from_camera)
        for frame in frames
    ]
    translation, rotation = np.median(errors, axis=0)
    assert translation < 0.15 and rotation < 6.0


def test_the_file_is_one_safetensors_with_a_header(small_map: Path, encoder: Encoder) -> None:
    with safe_open(str(small_map), "pt") as file:
        header = json.loads(file.metadata()["dimm_map"])
        types = {name: file.get_tensor(name).dtype for name in file.keys()}
    full = {name for name, dtype in types.items() if dtype != torch.float16}
    # What is solved for, and what an alignment with a grid moves.
    assert full == {f"whole.{name}" for name in ("weights", "spread", "left", "ridge", "bandwidth", "offset")} | {
        "ray.5.weight",
        "ray.5.bias",
    }
    assert header["format_version"] == FORMAT_VERSION and header["frame_id"] == "map"
    assert header["encoder"]["name"] == "dinov2-small" and header["encoder_sha256"] == encoder.weights.sha256
    assert (
        [source["frames"] for source in header["sources"]] == [24]
        and "walk" in header["sources"][0]["name"]
        and header["figures"]["views"] == 24
    )
    assert header["created"].startswith("20") and header["radius"] > 0.1
    assert str(Path.home()) not in json.dumps(header)  # a map never tells where it was made


@pytest.mark.long
def test_stopping_saves_a_usable_map_and_the_same_call_goes_on(tmp_path: Path, walk: Path, encoder: Encoder) -> None:
    recording = open_recording(walk)
    whole = tmp_path / "whole.dimm"
    assert build_map(recording, whole, encoder, head=HEAD, training=SHORT).complete

    path = tmp_path / "stopped.dimm"
    seen: list[tuple[str, int]] = []

    def stop_after(stage: str, done: int):
        def progress(at: str, count: int, total: int, note: str) -> bool:
            seen.append((at, count))
            return (at, count) == (stage, done)

        return progress

    first = build_map(recording, path, encoder, head=HEAD, training=SHORT, progress=stop_after("features", 30))
    assert not first.complete and first.path is None and not path.exists()
    second = build_map(recording, path, encoder, head=HEAD, training=SHORT, progress=stop_after("training", 5))
    assert not second.complete and second.path == path
    # none was encoded twice
    assert ("features", 31) in seen and ("features", 1) in seen and seen.count(("features", 20)) == 1
    assert SceneMap.load(path).header.figures["steps"] == 5
    third = build_map(recording, path, encoder, head=HEAD, training=SHORT)
    assert third.complete and not path.with_name("stopped.dimm.work").exists()
    # An interrupted training ends with the map that an uninterrupted one makes.
    one, other = SceneMap.load(path).head.state_dict(), SceneMap.load(whole).head.state_dict()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=2e-3, rtol=2e-2)


def test_another_recording_does_not_go_on_from_this_ones_features(
    tmp_path: Path, walk: Path, other_walk: Path, encoder: Encoder
) -> None:
    path = tmp_path / "map.dimm"
    build_map(
        open_recording(walk), path, encoder, head=HEAD, training=SHORT, progress=lambda stage, done, *_: done == 25
    )
    counts: list[int] = []

    def progress(stage: str, done: int, total: int, note: str) -> bool:
        counts.append(done)
        return True

    build_map(open_recording(other_walk), path, encoder, head=HEAD, training=SHORT, progress=progress)
    assert counts == [1]


def test_too_short_a_recording_is_refused(tmp_path: Path, other_walk: Path, encoder: Encoder) -> None:
    from dataclasses import replace

    recording = open_recording(other_walk)
    with pytest.raises(DataError, match="has 3 posed images; a map needs at least 10"):
        build_map(replace(recording, frames=recording.frames[:3]), tmp_path / "map.dimm", encoder)


def test_bad_map_files_get_one_sentence(tmp_path: Path, small_map: Path) -> None:
    with pytest.raises(MapError, match="does not exist; make one with 'dimm map"):
        SceneMap.load(tmp_path / "absent.dimm")
    truncated = tmp_path / "truncated.dimm"
    truncated.write_bytes(small_map.read_bytes()[:-1000])
    with pytest.raises(MapError, match="damaged or not a map"):
        SceneMap.load(truncated)
    garbage = tmp_path / "garbage.dimm"
    garbage.write_bytes(b"\x80\x04garbage" * 100)
    with pytest.raises(MapError, match="damaged or not a map"):
        SceneMap.load(garbage)
    other = tmp_path / "other.safetensors"
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(MapError, match="not a dimm map"):
        SceneMap.load(other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 99}, "has format 99"),
        ({"radius": -1.0}, "header"),
        ({"patch_dim": 7}, "does not hold the head"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, small_map: Path, change: dict, words: str) -> None:
    from safetensors.torch import load_file, save_file

    with safe_open(str(small_map), "pt") as file:
        header = json.loads(file.metadata()["dimm_map"]) | change
    path = tmp_path / "changed.dimm"
    save_file(load_file(small_map), path, {"dimm_map": json.dumps(header)})
    with pytest.raises(MapError, match=words):
        SceneMap.load(path)


def test_a_map_for_other_weights_is_refused(tmp_path: Path, small_map: Path, encoder: Encoder) -> None:
    from dimm_ros.errors import WeightsError

    scene_map = SceneMap.load(small_map)
    path = tmp_path / "foreign.dimm"
    SceneMap(
        scene_map.header.model_copy(update={"encoder_sha256": "ab" * 32}), scene_map.head, scene_map.landmarks
    ).save(path)
    with pytest.raises(WeightsError, match="abababababab"):
        Localizer.open(path, device="cpu", weights=encoder.weights.path)


def test_a_failed_write_leaves_the_old_map(tmp_path: Path, small_map: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dimm_ros.scene_map as module

    path = tmp_path / "map.dimm"
    shutil.copyfile(small_map, path)
    before = path.read_bytes()

    def full_disk(tensors: dict, file: Path, metadata: dict) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full_disk)
    with pytest.raises(MapError, match="cannot be written"):
        SceneMap.load(small_map).save(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["map.dimm"]


def test_held_out_frames_are_blocks_and_few() -> None:
    frames = held_out_frames(960)
    assert len(frames) == 160 and len(held_out_frames(50)) == 0
    assert np.sum(np.diff(frames) > 1) == 7  # eight stretches


def test_learning_rate_rises_and_falls() -> None:
    config = TrainingConfig(steps=100, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(101)]
    assert max(rates) == pytest.approx(1.0) and np.argmax(rates) in (9, 10) and rates[0] < 0.2 and rates[-1] < 1e-6
    assert np.all(np.diff(rates[10:]) < 0)


def test_normalisation_centres_and_scales() -> None:
    centres = torch.randn(50, 3, dtype=torch.float64) * 3 + 10
    normalisation = Normalisation.of(centres)
    normalised = (centres - normalisation.origin) / normalisation.radius
    assert normalised.mean(dim=0).abs().max() < 1e-9 and normalised.square().sum(dim=1).mean().sqrt() == pytest.approx(
        1.0
    )
    assert Normalisation.of(torch.zeros(4, 3)).radius == 0.1
