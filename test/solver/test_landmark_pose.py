"""Poses from matched landmarks: wrong matches, rigs, priors that help or are wrong, how sure, and how exact."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.landmarks.locate import MIN_PROOF
from dimm_ros.solver.landmark_pose import INLIER_PX, _point_hypotheses, chance_of, proof, solve_landmarks
from dimm_ros.solver.landmarks import PosePrior

from .landmark_scenes import Rig, pose_covariance

CHANCE = chance_of(2, 300.0)


def ratios(rig: Rig) -> np.ndarray:
    return rig.rng.uniform(0.3, 0.9, len(rig.bearings))


def drawn_prior(rig: Rig, root: np.ndarray) -> PosePrior:
    """One that errs as its covariance ``root @ root.T`` says."""
    error = root @ rig.rng.normal(size=6)
    turned = Rotation.from_rotvec(error[3:]).as_matrix() @ rig.rotation
    return PosePrior(turned, rig.centre + error[:3], np.linalg.inv(root @ root.T))


def off(rig: Rig, found) -> tuple[float, float]:
    """Metres and radians."""
    error = rig.error(found.rotation, found.centre)
    return float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))


@pytest.mark.parametrize("cameras", [1, 3])
def test_a_rig_is_found_among_wrong_matches(cameras: int) -> None:
    rig = Rig(1, count=240, cameras=cameras)
    rig.blur(0.5)
    wrong = rig.mismatch(0.6)
    found = solve_landmarks(rig.matches, ratios(rig), CHANCE)
    metres, radians = off(rig, found)
    assert metres < 0.01 and radians < 0.003
    assert found.inliers[~wrong].all() and found.inliers[wrong].mean() < 0.05
    assert found.prior is None and found.proof > 20


@pytest.mark.parametrize("cameras", [1, 3])
def test_hypotheses_are_poses_of_the_rig_not_of_its_cameras(cameras: int) -> None:
    """Refinement makes up for a wrong offset in an easy scene; the best hypothesis itself must be exact."""
    rig = Rig(9, count=90, cameras=cameras)
    rig.mismatch(0.4)
    rotation, centre = _point_hypotheses(rig.matches, ratios(rig), None, np.random.default_rng(0))
    assert np.abs(rig.error(rotation[0], centre[0])).max() < 1e-6


def test_lines_with_a_prior() -> None:
    rig = Rig(2, count=150, kind="lines", cameras=2)
    rig.blur(0.5)
    wrong = rig.mismatch(0.4)
    prior = PosePrior(*rig.beside(0.1, 0.04), np.linalg.inv(pose_covariance(0.08, 0.04)))
    found = solve_landmarks(rig.matches, ratios(rig), chance_of(1, 100.0), prior)
    metres, radians = off(rig, found)
    assert metres < 0.01 and radians < 0.004
    assert found.prior is prior and found.inliers[~wrong].mean() > 0.98


def test_lines_without_a_prior_need_poselib(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(3, count=80, kind="lines")
    monkeypatch.setitem(sys.modules, "poselib", None)  # as if it were not installed
    assert solve_landmarks(rig.matches, ratios(rig), chance_of(1, 300.0)) is None


@pytest.mark.parametrize("cameras", [1, 3])
def test_lines_without_a_prior_by_six_of_them(cameras: int) -> None:
    pytest.importorskip("poselib")
    rig = Rig(4, count=100, kind="lines", cameras=cameras)
    wrong = rig.mismatch(0.15)
    found = solve_landmarks(rig.matches, ratios(rig), chance_of(1, 300.0))
    metres, radians = off(rig, found)
    assert metres < 0.005 and radians < 0.002 and found.inliers[~wrong].all()


def test_a_prior_that_the_landmarks_contradict_is_dropped() -> None:
    rig = Rig(5, count=120)
    rig.blur(0.5)
    believed, wrong = rig.beside(0.01, 0.005), rig.beside(0.6, 0.2)
    for pose, dropped in ((believed, False), (wrong, True)):
        prior = PosePrior(*pose, np.linalg.inv(pose_covariance(0.02, 0.01)))
        found = solve_landmarks(rig.matches, ratios(rig), CHANCE, prior)
        assert (found.prior is None) == dropped
        metres, radians = off(rig, found)
        assert metres < 0.01 and radians < 0.003


@pytest.mark.parametrize("extent", [0.03, 0.1])
def test_of_two_poses_that_agree_with_a_flat_patch_the_prior_chooses(extent: float) -> None:
    """A small flat patch looks nearly alike from two sides: without a prior either may win, with one it may not be
    dropped.
    """
    alone, joined, root = [], [], np.linalg.cholesky(pose_covariance(0.02, 0.01))
    for seed in range(12):
        rig = Rig(seed, count=12)
        rig.bearings = rig.bearings * [extent, extent, 1.0]
        rig.bearings /= np.linalg.norm(rig.bearings, axis=1, keepdims=True)
        normal = np.array([*rig.rng.uniform(-0.4, 0.4, 2), 1.0])
        rig.places = rig.centre + (4.0 * rig.bearings / (rig.bearings @ normal)[:, None]) @ rig.rotation.T
        rig.blur(1.0)
        prior = drawn_prior(rig, root)
        for answer, given in ((alone, None), (joined, prior)):
            found = solve_landmarks(rig.matches, ratios(rig), CHANCE, given)
            answer.append(off(rig, found)[0])
            assert found.prior is given
    assert max(joined) < 0.12 and np.median(alone) > 0.3


def test_too_few_matches_give_no_pose() -> None:
    for count in (0, 5):
        rig = Rig(6, count=count)
        assert solve_landmarks(rig.matches, ratios(rig), CHANCE) is None
    rig = Rig(6, count=6)
    assert solve_landmarks(rig.matches, ratios(rig), CHANCE).inliers.all()


def test_the_same_seed_gives_the_same_pose() -> None:
    rig = Rig(7, count=100)
    rig.mismatch(0.5)
    ratio = ratios(rig)
    one, other = (solve_landmarks(rig.matches, ratio, CHANCE, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.centre, other.centre)
    assert one.proof == other.proof


def test_proof_counts_the_poses_that_agree_by_chance() -> None:
    """(n - s) C(n, k) C(k, s) p^(k - s), in whole numbers; and it bounds the binomial odds summed over all triples."""
    for inliers, matches, chance, equations in (
        (12, 40, 0.01, 2),
        (30, 31, 0.05, 2),
        (25, 60, 0.08, 1),
        (7, 7, 0.3, 1),
    ):
        sample = 3 if equations == 2 else 6
        alarms = (
            max(matches - sample, 1)
            * math.comb(matches, inliers)
            * math.comb(inliers, sample)
            * chance ** (inliers - sample)
        )
        told = proof(inliers, matches, chance, equations)
        assert told == pytest.approx(-math.log10(alarms), rel=1e-9)
        rest = matches - sample
        tail = sum(
            math.comb(rest, k) * chance**k * (1 - chance) ** (rest - k) for k in range(inliers - sample, rest + 1)
        )
        assert 10.0**-told >= math.comb(matches, sample) * tail
    assert proof(3, 40, 0.01, 2) == proof(6, 40, 0.01, 1) == -math.inf


def test_chance_is_the_share_of_the_region_that_agrees() -> None:
    rng, region = np.random.default_rng(8), 100.0
    spots = rng.uniform(-region, region, (400_000, 2))
    spots = spots[np.linalg.norm(spots, axis=1) < region]
    assert chance_of(2, region) == pytest.approx((np.linalg.norm(spots, axis=1) < INLIER_PX).mean(), rel=0.1)
    band = rng.uniform(-region, region, 100_000)  # a line is looked for in a band about it
    assert chance_of(1, region) == pytest.approx((np.abs(band) < INLIER_PX).mean(), rel=0.05)
    assert chance_of(2, 1.0) == chance_of(1, 1.0) == 0.9


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_random_matches_are_never_proven(kind: str) -> None:
    """Each keypoint with another's landmark: some pose agrees with a few of them, and is not believed."""
    equations = 2 if kind == "points" else 1
    for seed in range(6):
        rig = Rig(seed, count=100, kind=kind)
        rig.mismatch(1.0)
        # Bearings of the rig fill a square of 700 pixels; about a prior lines are looked for in a band.
        prior = (
            None if kind == "points" else PosePrior(*rig.beside(0.1, 0.05), np.linalg.inv(pose_covariance(0.1, 0.05)))
        )
        found = solve_landmarks(rig.matches, ratios(rig), chance_of(equations, 390.0), prior, seed)
        assert found is None or found.proof < MIN_PROOF
    rig = Rig(0, count=100, kind=kind)
    assert (
        solve_landmarks(
            rig.matches, ratios(rig), chance_of(equations, 390.0), PosePrior(*rig.beside(0, 0), np.eye(6))
        ).proof
        > 30
    )


@pytest.mark.parametrize(("kind", "joined"), [("points", False), ("points", True), ("lines", True)])
def test_errors_are_as_large_as_the_covariance_says(kind: str, joined: bool) -> None:
    """Normalised squared errors of simulated noise: six numbers, so six on average."""
    squares, root = [], np.linalg.cholesky(pose_covariance(0.004, 0.002))
    for seed in range(30):
        rig = Rig(seed, count=60, kind=kind, cameras=2)
        rig.blur(1.0)
        prior = drawn_prior(rig, root) if joined else None
        found = solve_landmarks(rig.matches, ratios(rig), chance_of(2 if kind == "points" else 1, 300.0), prior, seed)
        information = found.information + (found.prior.information if found.prior else 0)
        error = rig.error(found.rotation, found.centre)
        squares.append(error @ information @ error)
    assert 0.75 < np.mean(squares) / 6 < 1.4


@pytest.mark.parametrize(("kind", "share"), [("points", 4), ("lines", 16)])
def test_matches_of_lines_count_for_less(kind: str, share: int) -> None:
    rig = Rig(2, count=150, kind=kind, cameras=2)
    found = solve_landmarks(rig.matches, ratios(rig), CHANCE, PosePrior(*rig.beside(0.02, 0.01), np.eye(6)))
    np.testing.assert_allclose(found.counted, found.information / share)
    sure = replace(found, prior=PosePrior(found.rotation, found.centre, found.counted))
    assert sure.share == pytest.approx(0.5), "as much is the prior's as the landmarks'"
