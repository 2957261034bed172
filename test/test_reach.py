"""How far from the mapped views a map answers: measured against the right view, told in cells, kept in the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from landmarks.scenes import camera_poses, cloud, keypoints_of, landmarks_of, looks
from pydantic import ValidationError
from safetensors import safe_open
from scipy.spatial.transform import Rotation
from tiny_maps import MadeUpWalk, fitted, tiny_map

from dimm_ros.config import LandmarkConfig
from dimm_ros.data.open import open_recording
from dimm_ros.evaluation.map_info import map_info, rows
from dimm_ros.evaluation.map_report import write_map_report
from dimm_ros.geometry.poses import make_pose, pose_errors
from dimm_ros.landmarks.build import build_landmarks
from dimm_ros.landmarks.calibrate import HeldOut, calibrate_landmarks, left_out, outermost
from dimm_ros.mapping.calibrate import held_out_frames
from dimm_ros.mapping.fit import MapFit
from dimm_ros.reach import Reach, nearest_view
from dimm_ros.scene_map import Calibration, SceneMap, write_safetensors


def pose(x: float, turn_deg: float) -> np.ndarray:
    return make_pose(Rotation.from_euler("z", turn_deg, degrees=True).as_matrix(), np.array([x, 0.0, 0.0]))


#: A way of ten centimetres and five degrees a view.
MAPPED = np.stack([pose(0.1 * index, 5.0 * index) for index in range(11)])


def test_the_nearest_view_is_near_by_place_and_by_turn() -> None:
    """Not the one that is nearest by place, but looks the other way."""
    back = np.stack([pose(0.1 * index + 0.06, 5.0 * index + 180) for index in range(11)])
    distance, turn = nearest_view(
        np.stack([pose(0.52, 25.0), pose(0.52, 204.0), pose(2.0, 50.0)]), np.concatenate([MAPPED, back])
    )
    np.testing.assert_allclose(distance, [0.02, 0.04, 1.0], atol=1e-9)
    np.testing.assert_allclose(turn, [0.0, 1.0, 0.0], atol=1e-6)


def test_cells_tell_what_was_found_where() -> None:
    queries = np.stack([pose(0.03, 0), pose(0.04, 1), pose(0.045, 2), pose(1.4, 50), pose(-0.3, -30)])
    errors = np.array([[0.01, 0.1], [0.03, 0.3], [np.nan, np.nan], [0.2, 2.0], [np.nan, np.nan]])
    reach = Reach.of(queries, MAPPED, errors)
    near, far, turned = reach.cells()[0], *reach.cells()[:0:-1]
    assert (near.distance, near.turn, near.frames, near.answered) == ((0.02, 0.05), (0.0, 5.0), 3, 2)
    assert (near.position_error, near.rotation_error_deg) == pytest.approx((0.02, 0.2))
    assert {far.frames, turned.frames} == {1} and {far.answered, turned.answered} == {0, 1}
    lost = far if far.answered == 0 else turned
    assert lost.position_error is None and lost.turn == (20.0, 45.0)
    assert reach.furthest == pytest.approx((0.4, 30.0))


def test_joined_reaches_have_the_frames_of_both_and_few_are_kept() -> None:
    one = Reach.of(np.stack([pose(0.03, 0)]), MAPPED, np.array([[0.01, 0.1]]))
    other = Reach.of(np.stack([pose(3.0, 0)] * 300), MAPPED, np.full((300, 2), np.nan))
    assert one.joined(None) is one and len(other.distance) == 200
    both = one.joined(other)
    assert len(both.distance) == 200 and both.distance[0] == one.distance[0] and both.error[-1] is None
    assert Calibration(reach=one, frames=1).joined(Calibration(reach=other, frames=300)).reach == both
    assert Reach.of(np.empty((0, 4, 4)), MAPPED, np.empty((0, 2))) is None


def test_a_damaged_one_is_refused() -> None:
    with pytest.raises(ValidationError, match="not of the same frames"):
        Reach(distance=(1.0, 2.0), turn=(1.0,), error=(None, None), error_deg=(None, None))


def test_frames_that_landmarks_do_not_find_count_as_unanswered() -> None:
    rng = np.random.default_rng(0)
    points, descriptors = cloud(rng, 200), looks(rng, 200)
    mapped, queries = camera_poses(rng, 40), camera_poses(rng, 10)
    # they see other things
    queries[:2, :3, :3] = queries[:2, :3, :3] @ Rotation.from_euler("y", 180, degrees=True).as_matrix()
    elsewhere, unlike = cloud(rng, 200), looks(rng, 200)
    keypoints = [
        keypoints_of(one, elsewhere if index < 2 else points, unlike if index < 2 else descriptors, 0.3, rng)
        for index, one in enumerate(queries)
    ]
    reach = calibrate_landmarks([HeldOut(landmarks_of(points, descriptors), keypoints, queries, mapped)]).reach
    assert np.flatnonzero(np.isnan(reach.arrays()["error"])).tolist() == [0, 1] and min(reach.turn[:2]) > 90 > max(
        reach.turn[2:]
    )
    assert np.nanmax(reach.arrays()["error"]) < 0.02
    few = calibrate_landmarks([HeldOut(landmarks_of(points, descriptors), keypoints[:4], queries[:4], mapped)])
    assert few.frames == 0 and len(few.reach.distance) == 4  # too few for standard deviations, but not nothing


def test_a_fit_measures_the_frames_it_holds_out(tmp_path: Path) -> None:
    """Each against the views that are left, not against its own neighbours that were held out with it."""
    walk = MadeUpWalk(112)
    made = fitted(walk.views(), tmp_path, 30)
    held_out = held_out_frames(112)
    reach, kept = made.header.calibration.reach, np.delete(walk.poses, held_out, axis=0)
    np.testing.assert_allclose(reach.distance, nearest_view(walk.poses[held_out], kept)[0], atol=1e-4)
    assert len(reach.error) == len(held_out) and max(reach.distance) > 3 * np.median(
        pose_errors(walk.poses[1:], walk.poses[:-1])[0]
    )
    answered = reach.arrays()["error"]
    assert np.isfinite(answered).any() and np.nanmedian(answered) == pytest.approx(
        made.header.calibration.position_error, rel=0.2
    )


def test_in_an_update_the_old_views_are_mapped_ones(tmp_path: Path) -> None:
    """The head that is judged rehearsed them: frames held out of a second drive along the way are near them."""
    walk = MadeUpWalk(112)
    views, held_out = walk.views(), held_out_frames(112)
    old = fitted(views, tmp_path, 10)
    checkpoint, stop = tmp_path / "update.safetensors", lambda *_: False
    update = MapFit(old.header, views, checkpoint, "", torch.device("cpu"), stop, start=old, rehearsal=views)
    joined = update.run().scene_map.header.calibration.reach
    assert len(joined.distance) == 2 * len(held_out)
    np.testing.assert_allclose(joined.distance[len(held_out) :], 0.0, atol=1e-4)


def test_the_file_holds_it_and_info_and_report_tell_it(tmp_path: Path) -> None:
    errors = np.tile([[0.01, 0.1]], (6, 1))
    errors[5] = np.nan
    reach = Reach.of(np.stack([pose(0.03 + 0.1 * index, 5 * index) for index in range(6)]), MAPPED, errors)
    scene_map, path = tiny_map(calibration=Calibration(reach=reach)), tmp_path / "tiny.dimm"
    scene_map.save(path)
    assert SceneMap.load(path).header.calibration.reach == reach
    info = map_info(path)
    assert info["reach"]["rays alone"]["furthest_m"] == pytest.approx(0.03) and json.dumps(info)
    texts = [text for label, text in rows(info) if label.startswith(("reach", "  "))]
    assert "of 6 held-out frames; none was further than 3 cm" in texts[0] and "nothing is known beyond" in texts[0]
    assert texts[1:] == ["0-5 deg: 1.0 cm, 0.10 deg, 5 of 6 answered"]
    write_map_report(path, tmp_path / "map.html")
    assert 'alt="reach"' in (tmp_path / "map.html").read_text()


def test_maps_of_the_format_before_have_none_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "old.dimm"
    tiny_map().save(path)
    with safe_open(str(path), "pt") as file:
        header, tensors = json.loads(file.metadata()["dimm_map"]), {name: file.get_tensor(name) for name in file.keys()}
    header["format_version"] = 5
    del header["calibration"]["reach"]
    write_safetensors(tensors, path, {"dimm_map": json.dumps(header)})
    info = map_info(path)
    assert info["format"] == 5 and (
        "reach",
        "not measured: the recording is short, or the map was made by an earlier dimm_ros",
    ) in rows(info)
    write_map_report(path, tmp_path / "map.html")
    assert 'alt="reach"' not in (tmp_path / "map.html").read_text()


def test_one_end_of_a_walk_is_left_out_of_all_its_rounds() -> None:
    along = np.tile(np.concatenate([np.linspace(0, 4, 50), np.linspace(4, 0, 50)]), 3)
    far = outermost(np.stack([pose(x, 0.0) for x in along]))
    assert 0.25 < far.mean() < 0.35
    assert along[far].min() > along[~far].max() or along[far].max() < along[~far].min()


def test_building_landmarks_asks_beyond_the_path(walk: Path) -> None:
    """Further than the frames that are left out between their neighbours."""
    frames = open_recording(walk).frames
    reach = build_landmarks(frames, np.zeros(3), LandmarkConfig()).calibration.reach
    poses = np.stack([frame.world_from_camera for frame in frames])
    between = [nearest_view(poses[apart], np.delete(poses, apart, axis=0))[0].max() for apart in left_out(24)]
    assert len(reach.distance) == 24 + outermost(poses).sum()
    assert max(reach.distance) > 2 * max(between) and np.nanmedian(reach.arrays()["error"]) < 0.05
