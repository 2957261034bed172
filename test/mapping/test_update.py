"""A map takes in a new recording: it knows both then, whether features were kept or not, and refuses what does not
belong to it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimm_ros.config import EncoderConfig, HeadConfig, TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.errors import BusyError, DataError, MapError, WeightsError
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.build import build_map, locked, work_folder
from dimm_ros.mapping.rehearse import features_path, keep_features, load_features, remembered_views
from dimm_ros.mapping.retrieval import ReferenceViews, reference_path
from dimm_ros.mapping.training_views import Stacked, TrainingViews
from dimm_ros.mapping.update import one_recording, update_map
from dimm_ros.scene_map import Calibration, SceneMap

STEPS = 250


def copied(small_map: Path, folder: Path) -> Path:
    """The small map with its retrieval file."""
    path = folder / "room.dimm"
    shutil.copy(small_map, path)
    shutil.copy(reference_path(small_map), reference_path(path))
    return path


def training(path: Path, steps: int = STEPS) -> TrainingConfig:
    return SceneMap.load(path).header.training.changed(steps=steps)


def judged(path: Path, bag: Path) -> tuple[float, float, float]:
    """Medians of metres, degrees and novelty."""
    localizer = Localizer.open(path, device="cpu")
    estimates = [(frame, localizer.localize(frame.load(), frame.camera)) for frame in open_recording(bag).frames[::4]]
    off = [pose_errors(estimate.world_from_camera, frame.world_from_camera) for frame, estimate in estimates]
    return *np.median(off, axis=0), float(np.median([estimate.novelty for _, estimate in estimates]))


@pytest.fixture(scope="module")
def updated(tmp_path_factory, small_map: Path, other_walk: Path, encoder: Encoder) -> Path:
    """The small map with the other walk, without kept features."""
    path = copied(small_map, tmp_path_factory.mktemp("updated"))
    result = update_map(path, [open_recording(other_walk)], encoder, training=training(path), licence="CC0-1.0")
    assert result.complete and result.path == path
    return path


def test_it_knows_the_new_views_and_still_the_old_ones(
    updated: Path, small_map: Path, walk: Path, other_walk: Path
) -> None:
    new_before, new_after = judged(small_map, other_walk), judged(updated, other_walk)
    assert new_after[0] < 0.5 * new_before[0] and new_after[0] < 0.15 and new_after[2] < 0.1 * new_before[2]
    old_before, old_after = judged(small_map, walk), judged(updated, walk)
    assert old_after[0] < old_before[0] + 0.05 and old_after[1] < old_before[1] + 2.0 and old_after[2] < 0.1


def test_without_rehearsal_it_would_forget(walk: Path, updated: Path, other_map: Path) -> None:
    """So that the test above would notice."""
    assert judged(other_map, walk)[0] > 3 * judged(updated, walk)[0]


def test_the_header_tells_both_recordings(updated: Path, small_map: Path) -> None:
    old, new = SceneMap.load(small_map).header, SceneMap.load(updated).header
    assert [source.frames for source in new.sources] == [24, 10] and [source.licence for source in new.sources] == [
        None,
        "CC0-1.0",
    ]
    assert (new.name, new.frame_id, new.origin, new.radius) == (old.name, old.frame_id, old.origin, old.radius)
    assert len(new.curves) == 2 and new.curves[1].points[-1][0] == STEPS
    assert new.calibration.max_novelty >= 0.4
    views = ReferenceViews.load(updated, new)
    assert len(views.cls) == len(views.world_from_camera) == 34
    assert not updated.with_name("room.dimm.work").exists() and not features_path(updated).exists()


@pytest.mark.long
def test_kept_features_are_rehearsed_and_kept_on(
    tmp_path: Path, walk: Path, other_walk: Path, encoder: Encoder
) -> None:
    path = tmp_path / "kept.dimm"
    head = HeadConfig(mappers=2, width=128, depth=1)
    build_map(
        open_recording(walk),
        path,
        encoder,
        head=head,
        training=TrainingConfig(steps=200, batch=512, passes=1, learning_rate=3e-3),
        keep=True,
    )
    kept = load_features(features_path(path), SceneMap.load(path).header)
    assert len(kept) == 24 and len(kept.patches) == 24 * 128 and kept.patches.dtype == torch.float16
    before = judged(path, walk)
    assert update_map(path, [open_recording(other_walk)], encoder, training=training(path, 100)).complete
    after = judged(path, walk)
    assert after[0] < before[0] + 0.05 and judged(path, other_walk)[0] < 0.2
    kept = load_features(features_path(path), SceneMap.load(path).header)
    assert len(kept) == 34 and sorted(set(kept.frame_of.tolist())) == list(range(34))
    directions = torch.einsum("nij,nj->ni", kept.rotations[kept.view_of.long()].float(), kept.camera_rays)
    torch.testing.assert_close(directions, kept.directions, atol=1e-4, rtol=0)


def test_features_of_another_map_are_not_used(
    tmp_path: Path, small_map: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene_map = SceneMap.load(small_map)
    data = views(5)
    path = features_path(tmp_path / "room.dimm")
    keep_features(path, scene_map.header, data)
    assert len(load_features(path, scene_map.header)) == 5
    assert (
        load_features(path, scene_map.header.model_copy(update={"created": "later"})) is None
        and "is of another map" in caplog.text
    )
    path.write_bytes(b"\x80\x04garbage" * 10)
    with pytest.raises(MapError, match="cannot be read .*delete that file"):
        load_features(path, scene_map.header)
    assert load_features(tmp_path / "absent", scene_map.header) is None


def views(count: int, patches: int = 6) -> TrainingViews:
    """Features of as many views that look straight ahead."""
    generator = torch.Generator().manual_seed(0)
    rays = torch.nn.functional.normalize(torch.randn(count * patches, 3, generator=generator), dim=1)
    return TrainingViews(
        patches=torch.randn(count * patches, 384, generator=generator).half(),
        camera_rays=rays,
        directions=rays,
        view_of=torch.arange(count, dtype=torch.int32).repeat_interleave(patches),
        context=torch.randn(count, 6144, generator=generator).half(),
        centres=torch.randn(count, 3, generator=generator).double(),
        rotations=torch.eye(3).double().expand(count, 3, 3).contiguous(),
        frame_of=torch.arange(count, dtype=torch.int32),
    )


def test_remembered_views_are_where_the_images_were(small_map: Path, walk: Path) -> None:
    scene_map = SceneMap.load(small_map)
    remembered = remembered_views(scene_map, views(3), seed=0)
    poses = open_recording(walk).poses()
    assert len(remembered.context) == len(poses) and bool(remembered.recorded.all())
    np.testing.assert_allclose(remembered.centres.numpy(), poses[:, :3, 3], atol=5e-3)
    np.testing.assert_allclose(remembered.rotations.numpy(), poses[:, :3, :3], atol=5e-3)
    turned = torch.einsum("nij,nj->ni", remembered.rotations[remembered.view_of.long()].float(), remembered.camera_rays)
    torch.testing.assert_close(turned, remembered.directions)
    assert float(scene_map.head.whole(remembered.context.float())[2].max()) < 0.01


def test_stacked_tensors_are_indexed_as_one() -> None:
    parts = [torch.arange(5.0)[:, None], torch.arange(10.0, 13.0)[:, None], torch.arange(20.0, 22.0)[:, None]]
    stacked, joined = Stacked(*parts), torch.cat(parts)
    rows = torch.tensor([9, 0, 4, 5, 7, 8, 3, 9])
    torch.testing.assert_close(stacked[rows], joined[rows])
    assert len(stacked) == 10 and stacked.shape == (10, 1)


def test_two_updates_of_one_map_do_not_meet(
    tmp_path: Path, small_map: Path, other_walk: Path, encoder: Encoder
) -> None:
    path = copied(small_map, tmp_path)
    before = path.read_bytes()
    with (
        locked(work_folder(path)),
        pytest.raises(BusyError, match="Another process is making .*room.dimm at this moment"),
    ):
        update_map(path, [open_recording(other_walk)], encoder, training=training(path, 2))
    assert path.read_bytes() == before


def test_stopping_leaves_the_map_and_the_same_call_goes_on(
    tmp_path: Path, small_map: Path, other_walk: Path, encoder: Encoder
) -> None:
    path = copied(small_map, tmp_path)
    before = path.read_bytes()
    seen: list[tuple[str, int]] = []

    def stop_at(stage: str, done: int):
        def progress(at: str, count: int, total: int, note: str) -> bool:
            seen.append((at, count))
            return (at, count) == (stage, done)

        return progress

    recording, config = open_recording(other_walk), training(path, 6)
    for stage, done in (("features", 4), ("training", 3)):
        result = update_map(path, [recording], encoder, training=config, progress=stop_at(stage, done))
        assert result.path is None and not result.complete and path.read_bytes() == before
    assert update_map(path, [recording], encoder, training=config, progress=stop_at("", 0)).complete
    assert seen.count(("features", 3)) == 1 and seen.count(("training", 2)) == 1  # nothing was done twice
    assert path.read_bytes() != before and not path.with_name("room.dimm.work").exists()


def test_what_does_not_belong_to_the_map_is_refused(
    tmp_path: Path, small_map: Path, walk: Path, other_walk: Path, encoder: Encoder
) -> None:
    path = copied(small_map, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    recording = open_recording(other_walk)
    with pytest.raises(DataError, match="poses in frame 'attic', map 'gallery' is in 'map'"):
        update_map(path, [replace(recording, frame_id="attic")], encoder)
    with pytest.raises(DataError, match="but .* is in frame 'attic'"):
        update_map(path, [recording, replace(recording, frame_id="attic")], encoder)
    with pytest.raises(DataError, match="No recording was given"):
        update_map(path, [], encoder)
    with pytest.raises(DataError, match="has 3 posed images; a map needs at least 10"):
        update_map(path, [replace(recording, frames=recording.frames[:3])], encoder)
    with pytest.raises(MapError, match="does not exist"):
        update_map(tmp_path / "absent.dimm", [recording], encoder)
    with pytest.raises(MapError, match="is a folder"):
        update_map(path, [recording], encoder, tmp_path)
    with pytest.raises(WeightsError, match="was made with another encoder"):
        update_map(path, [recording], Encoder.open(EncoderConfig(input_size=112), device="cpu"))
    moved = np.eye(4)
    moved[:3, 3] = 5.0, 0.0, 0.0
    elsewhere = [
        replace(frame, world_from_camera=moved @ frame.world_from_camera) for frame in open_recording(walk).frames
    ]
    with pytest.raises(DataError, match="is not in the frame of map 'gallery': .* 5.0. m"):
        update_map(path, [replace(open_recording(walk), frames=elsewhere)], encoder)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_map_that_remembers_nothing_is_not_updated(
    tmp_path: Path, small_map: Path, other_walk: Path, encoder: Encoder
) -> None:
    path = tmp_path / "paper.dimm"
    config = TrainingConfig(steps=2, batch=64, passes=1)
    build_map(
        open_recording(other_walk),
        path,
        encoder,
        head=HeadConfig(mappers=1, width=16, depth=1, whole_share=0.0),
        training=config,
    )
    with pytest.raises(MapError, match="remembers no view .*--keep-features"):
        update_map(path, [open_recording(other_walk)], encoder)


def test_calibrations_of_other_units_and_of_two_recordings() -> None:
    one = Calibration(
        position_rate=0.4,
        rotation_rate_deg=10.0,
        max_novelty=0.5,
        frames=40,
        position_error=0.02,
        rotation_error_deg=1.0,
    )
    np.testing.assert_allclose(one.rescaled(0.5).sigmas(0.1), one.sigmas(0.2))
    assert one.rescaled(0.5).max_novelty == 0.25
    other = Calibration(
        position_rate=0.8,
        rotation_rate_deg=20.0,
        max_novelty=0.4,
        frames=120,
        position_error=0.06,
        rotation_error_deg=2.0,
    )
    both = one.joined(other)
    assert (both.frames, both.max_novelty) == (160, 0.5) and both.position_error == pytest.approx(0.05)
    assert one.sigmas(0.2)[0] < both.sigmas(0.2)[0] < other.sigmas(0.2)[0]
    # no frame was held out: the other's rates rest on something
    short = Calibration(position_rate=3.0, max_novelty=0.9)
    assert one.joined(short) == short.joined(one) == one.model_copy(update={"max_novelty": 0.9})


def test_several_recordings_are_one(walk: Path, other_walk: Path) -> None:
    both = one_recording([open_recording(walk), open_recording(other_walk)])
    assert len(both.frames) == 34 and len({frame.name for frame in both.frames}) == 34
    np.testing.assert_array_equal(both.poses()[24:], open_recording(other_walk).poses())
