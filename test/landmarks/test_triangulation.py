"""Places of tracks: those that another optimiser finds, whatever the world's unit and origin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import least_squares

from dimm_ros.geometry.poses import make_pose
from dimm_ros.landmarks.triangulation import MAX_PIXELS, MIN_ANGLE_DEG, triangulate

from .scenes import SIGMA, camera_poses, cloud, tracks_of


def test_exact_rays_meet_in_their_points() -> None:
    rng = np.random.default_rng(0)
    points, poses = cloud(rng, 50), camera_poses(rng, 6)
    found = triangulate(tracks_of(points, poses), poses)
    assert found.good.all() and found.agrees.all() and (found.views == 6).all()
    np.testing.assert_allclose(found.points, points, atol=1e-7)


def test_places_are_as_likely_as_scipys() -> None:
    """The kernel of four pixels on the angles, minimised point by point."""
    rng = np.random.default_rng(1)
    points, poses = cloud(rng, 12), camera_poses(rng, 5)
    tracks = tracks_of(points, poses, 1.0, rng)
    found = triangulate(tracks, poses)
    for number in range(12):
        rows = np.flatnonzero(tracks.track == number)
        rays = np.einsum("kij,kj->ki", poses[tracks.image[rows], :3, :3], tracks.bearings[rows])

        def cost(place: np.ndarray, rows=rows, rays=rays) -> np.ndarray:
            arm = place - poses[tracks.image[rows], :3, 3]
            pixels = np.linalg.norm(np.cross(rays, arm), axis=1) / np.linalg.norm(arm, axis=1) / SIGMA
            return pixels / np.sqrt(1 + (pixels / MAX_PIXELS) ** 2)

        best = least_squares(cost, points[number], xtol=1e-14, ftol=1e-14, gtol=1e-14).x
        least, own, true = ((cost(place) ** 2).sum() for place in (best, found.points[number], points[number]))
        assert least <= own < 1.01 * least + 1e-3 and own < true


def test_a_wrong_match_of_a_track_is_left_out() -> None:
    rng = np.random.default_rng(2)
    points, poses = cloud(rng, 30), camera_poses(rng, 6)
    tracks = tracks_of(points, poses)
    bearings = tracks.bearings.copy()
    wrong = (tracks.image == 3) & (tracks.track < 10)  # ten points of one image are 30 pixels off
    bearings[wrong] += [0.0, 30 * SIGMA, 0.0]
    bearings /= np.linalg.norm(bearings, axis=1, keepdims=True)
    found = triangulate(replace(tracks, bearings=bearings), poses)
    np.testing.assert_array_equal(found.agrees, ~wrong)
    assert found.good.all() and (found.views[:10] == 5).all() and (found.views[10:] == 6).all()
    np.testing.assert_allclose(found.points, points, atol=2e-3)


def test_a_landmark_has_one_observation_an_image() -> None:
    """A track that was joined with a second keypoint of one image: the nearer one counts."""
    rng = np.random.default_rng(3)
    points, poses = cloud(rng, 1), camera_poses(rng, 4)
    tracks = tracks_of(points, poses)
    second = tracks.bearings[2] + [2 * SIGMA, 0.0, 0.0]
    doubled = replace(
        tracks,
        track=np.append(tracks.track, 0),
        image=np.append(tracks.image, 2),
        bearings=np.vstack([tracks.bearings, second / np.linalg.norm(second)]),
        sigma=np.append(tracks.sigma, SIGMA),
        descriptors=np.vstack([tracks.descriptors, tracks.descriptors[:1]]),
    )
    found = triangulate(doubled, poses)
    assert found.views[0] == 4 and found.agrees.tolist() == [True, True, True, True, False]


def test_a_small_parallax_and_a_single_view_are_not_good() -> None:
    points = np.array([[0.0, 0.0, 4.0]])
    for angle, good in ((0.8 * MIN_ANGLE_DEG, False), (1.3 * MIN_ANGLE_DEG, True)):
        baseline = 4.0 * np.tan(np.radians(angle))
        poses = np.stack([np.eye(4), make_pose(np.eye(3), [baseline, 0.0, 0.0])])
        assert triangulate(tracks_of(points, poses), poses).good[0] == good
    assert not triangulate(tracks_of(points, poses[:1]), poses[:1]).good[0]


def test_what_would_be_behind_the_cameras_is_not_good() -> None:
    poses = np.stack([np.eye(4), make_pose(np.eye(3), [1.0, 0.0, 0.0])])
    tracks = tracks_of(np.array([[0.5, 0.0, -3.0]]), poses)  # rays that meet, both backwards
    found = triangulate(replace(tracks, bearings=-tracks.bearings), poses)
    assert not found.good[0] and not found.agrees.any()


def test_neither_unit_nor_origin_matter() -> None:
    """Structure in millimetres, or a kilometre away, is the same structure."""
    rng = np.random.default_rng(4)
    points, poses = cloud(rng, 80), camera_poses(rng, 5, reach=0.15)
    tracks = tracks_of(points, poses, 1.0, rng)
    here = triangulate(tracks, poses)
    for scale, shift in ((1000.0, 0.0), (1e-3, 0.0), (1.0, np.array([1000.0, -500.0, 20.0]))):
        there_poses = poses.copy()
        there_poses[:, :3, 3] = scale * poses[:, :3, 3] + shift
        there = triangulate(tracks, there_poses)
        np.testing.assert_array_equal(there.good, here.good)
        np.testing.assert_array_equal(there.agrees, here.agrees)
        np.testing.assert_allclose(
            (there.points[here.good] - shift) / scale, here.points[here.good], rtol=1e-6, atol=1e-6
        )


def test_no_tracks_have_no_places() -> None:
    poses = np.eye(4)[None]
    found = triangulate(tracks_of(np.empty((0, 3)), poses), poses)
    assert found.points.shape == (0, 3) and not len(found.good)
