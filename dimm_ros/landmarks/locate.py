"""Pose of images from their keypoints and a map's landmarks: guided by a pose where there is one, else against all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dimm_ros.geometry.poses import invert, make_pose, moved, pose_difference
from dimm_ros.landmarks.keypoints import Keypoints
from dimm_ros.landmarks.matching import mutual_matches
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.solver.landmark_pose import LandmarkPose, chance_of, solve_landmarks
from dimm_ros.solver.landmarks import LandmarkMatches, PosePrior, squared_errors

#: Search radius around a prediction, in standard deviations and as limits in radians and pixels.
_SIGMAS, _WIDEST, _LEAST_PX = 3.0, 0.35, 8.0
#: Landmarks that a search without any pose goes through: those that most images showed; and one near a pose.
_FAMILIAR, _VISIBLE = 8000, 3000
#: Keypoints, the strongest, and landmarks of a coarse search.
_COARSE = 1000, 1500
#: Search radius about a pose that was found among all landmarks, pixels.
_FOUND_PX = 16.0
#: Proof from which a pose is believed: one false alarm in so many, as a power of ten.
MIN_PROOF = 6.0
#: Another pass of the recording: least number of inliers and share of the first one's, how far off they are by its
#: pose at least, pixels, and how far apart the two poses are at most, as a share of the distance of what is seen, and
#: radians; and how wide its part of the image is at least, as a share of the first one's.
_OTHER_LEAST, _OTHER_SHARE, _OTHER_PX, _OTHER_APART, _OTHER_WIDE = 30, 0.2, 10.0, (0.06, 0.1), 0.5


@dataclass(frozen=True)
class Matched:
    """Matches of keypoints with landmarks, camera after camera.

    Attributes:
        matches: for the solver.
        ratio: (N,) lower is clearer.
        landmarks: (N,) indices.
        camera: (N,) index of the image.
        keypoints: (N,) index in that image's keypoints.
        region_px: radius of the region in which each was looked for, pixels (median).
    """

    matches: LandmarkMatches
    ratio: np.ndarray
    landmarks: np.ndarray
    camera: np.ndarray
    keypoints: np.ndarray
    region_px: float

    def at(self, rows: np.ndarray) -> Matched:
        """Some of the matches: (K,) indices."""
        names = ("ratio", "landmarks", "camera", "keypoints")
        return replace(self, matches=self.matches.at(rows), **{name: getattr(self, name)[rows] for name in names})


@dataclass(frozen=True)
class LandmarkResult:
    """A pose from landmarks and the matches that it rests on.

    Attributes:
        world_from_rig: (4, 4) the pose as the recording would have it, see ``Warp``.
        unknown: share of the variance of the recording's errors that its poses near by do not tell, 0 to 1.
        other: (4, 4) world_from_rig by those matches that contradict the pose together, as landmarks of another pass of
            the recording over the place do, not bent; None where there are none.
        apart: (6,) what ``other`` is off from the pose at the camera that shows most; None without it.
    """

    pose: LandmarkPose
    matched: Matched
    world_from_rig: np.ndarray
    unknown: float = 1.0
    other: np.ndarray | None = None
    apart: np.ndarray | None = None

    @property
    def proven(self) -> bool:
        """Whether so many matches agree that chance is out of the question."""
        return self.pose.proof > MIN_PROOF


def locate(
    keypoints: Sequence[Keypoints],
    rig_from_camera: np.ndarray,
    landmarks: Landmarks,
    prior: PosePrior | None,
    seed: int = 0,
    *,
    everywhere: bool = False,
) -> LandmarkResult | None:
    """Pose of a rig, or of one camera, from what its images show.

    Args:
        keypoints: of each image.
        rig_from_camera: (K, 4, 4), metres.
        landmarks: of the map.
        prior: pose about which to look, and its information; None looks everywhere.
        seed: of the sampling.
        everywhere: look everywhere even with a prior, which then only joins the pose: where two passes of the recording
            place what they saw apart, the first pose is that of what was seen most often, not of what is nearest to
            the prior.

    Returns:
        None when nothing agrees.
    """
    prior = _straight(prior, rig_from_camera, landmarks)
    found = _located(keypoints, rig_from_camera, landmarks, prior, seed, everywhere)
    return None if found is None else _as_recorded(found, rig_from_camera, landmarks)


def solve_known(
    keypoints: Keypoints, rows: np.ndarray, doubt: np.ndarray, landmarks: Landmarks, prior: PosePrior
) -> LandmarkResult | None:
    """Pose of one camera whose keypoints are known to show certain landmarks.

    Args:
        keypoints: N of them.
        rows: (N,) indices of the landmarks that they show.
        doubt: (N,) lower is clearer.
        landmarks: of the map.
        prior: see ``locate``.

    Returns:
        None when nothing agrees.
    """
    camera = np.eye(4)[None]
    part = (0, np.arange(len(rows)), rows, doubt, _LEAST_PX)
    prior = _straight(prior, camera, landmarks)
    found = _solved(_gather([part], [keypoints], camera, landmarks), landmarks, prior, 0)
    return None if found is None else _as_recorded(found, camera, landmarks)


def _straight(prior: PosePrior | None, rig_from_camera: np.ndarray, landmarks: Landmarks) -> PosePrior | None:
    """A prior that errs as the recording does, as rays and earlier answers do, among the landmarks; of a rig by its
    last camera.
    """
    if prior is None or landmarks.warp is None:
        return prior
    seen = rig_from_camera[-1]
    straight = landmarks.warp.straight(make_pose(prior.rotation, prior.centre) @ seen) @ invert(seen)
    return PosePrior(straight[:3, :3], straight[:3, 3], prior.information)


def _as_recorded(found: LandmarkResult, rig_from_camera: np.ndarray, landmarks: Landmarks) -> LandmarkResult:
    """The result with the pose as the recording would have that of the camera which shows most.

    What two passes over a place err is as likely: far from every recorded pose the truth is expected half-way between
    them, near one of them it is that one's (the mean of two estimates, one of variance ``unknown``, one of 1).
    """
    if landmarks.warp is None:
        return found
    seen = rig_from_camera[np.bincount(found.matched.camera[found.pose.inliers]).argmax()]
    recorded, unknown = landmarks.warp.recorded(found.world_from_rig @ seen)
    apart = _apart(found, seen, landmarks)
    if apart is None:
        return replace(found, world_from_rig=recorded @ invert(seen), unknown=unknown, other=None)
    own = found.pose.share * unknown  # what a prior gives is of no pass
    recorded = moved(recorded, own / (1.0 + own) * pose_difference(found.other @ seen, recorded))
    return replace(found, world_from_rig=recorded @ invert(seen), unknown=unknown / (1.0 + own), apart=apart)


def _apart(found: LandmarkResult, seen: np.ndarray, landmarks: Landmarks) -> np.ndarray | None:
    """(6,) what the other pass is off at a camera, rig_from_camera; None where it is the same one, or another place."""
    if found.other is None:
        return None
    apart = pose_difference(found.other @ seen, found.world_from_rig @ seen)
    share, radians = np.linalg.norm(apart.reshape(2, 3), axis=1) / [landmarks.seen_distance, 1.0]
    same = (share + radians) / found.matched.matches.sigma[0] < _OTHER_PX
    return None if same or share > _OTHER_APART[0] or radians > _OTHER_APART[1] else apart


def _located(
    keypoints: Sequence[Keypoints],
    rig_from_camera: np.ndarray,
    landmarks: Landmarks,
    prior: PosePrior | None,
    seed: int,
    everywhere: bool,
) -> LandmarkResult | None:
    coarse = False
    if prior is None or everywhere:
        matched = match_all(keypoints, rig_from_camera, landmarks)
    else:
        # A wide region of points is searched coarsely first: the pose found narrows it.
        coarse = landmarks.kind == "points" and _SIGMAS * prior.sigmas()[1] > 2 * _FOUND_PX * keypoints[0].sigma
        matched = match_near(keypoints, rig_from_camera, landmarks, prior, coarse)
    found = _solved(matched, landmarks, prior, seed)
    if coarse and (found is None or not found.proven):
        matched = match_near(keypoints, rig_from_camera, landmarks, prior)
        found = _solved(matched, landmarks, prior, seed)
    if found is None or not found.proven or matched.region_px < 2 * _FOUND_PX:
        return found
    narrowed = _narrowed(found, keypoints, rig_from_camera, landmarks, seed)
    if landmarks.warp is None or landmarks.kind == "lines" or not (prior is None or everywhere):
        return narrowed  # lines hardly fix a pose by the few that are left over; a search about a prior sees one pass
    second = _left_over(found, landmarks, seed)
    if second is None:
        return narrowed
    rest = np.ones(len(landmarks), bool)
    rest[narrowed.matched.landmarks[narrowed.pose.inliers]] = False
    other = _narrowed(second, keypoints, rig_from_camera, landmarks.chosen(rest), seed)
    return replace(narrowed, other=other.world_from_rig)


def _narrowed(
    found: LandmarkResult, keypoints: Sequence[Keypoints], rig_from_camera: np.ndarray, landmarks: Landmarks, seed: int
) -> LandmarkResult:
    """Now that it is better known where, by those landmarks that were seen from about there."""
    turn = keypoints[0].sigma * _FOUND_PX / _SIGMAS
    about = PosePrior(found.pose.rotation, found.pose.centre, np.diag([1e12] * 3 + [turn**-2] * 3))
    better = _solved(match_near(keypoints, rig_from_camera, landmarks, about), landmarks, found.pose.prior, seed)
    if better is None or 2 * better.pose.inliers.sum() < found.pose.inliers.sum():
        return found
    # The first search is the proof: in so narrow a one, chance alone agrees often.
    return replace(better, pose=replace(better.pose, proof=max(better.pose.proof, found.pose.proof)))


def _left_over(found: LandmarkResult, landmarks: Landmarks, seed: int) -> LandmarkResult | None:
    """What the matches that a pose leaves over prove together, as the landmarks of another pass of the recording over
    the place do; None where they are few beside the first, or in a small part of the image, as on a thing that was
    moved.
    """
    matches, first = found.matched.matches, found.pose.inliers
    errors = squared_errors(found.pose.rotation[None], found.pose.centre[None], matches)[0]
    left = np.flatnonzero(errors > _OTHER_PX**2)
    least = max(_OTHER_LEAST, _OTHER_SHARE * first.sum())
    second = _solved(found.matched.at(left), landmarks, None, seed) if len(left) >= least else None
    if second is None or not second.proven or second.pose.inliers.sum() < least:
        return None
    here, there = (np.linalg.norm(matches.bearings[rows].std(axis=0)) for rows in (left[second.pose.inliers], first))
    return second if here > _OTHER_WIDE * there else None


def _solved(matched: Matched, landmarks: Landmarks, prior: PosePrior | None, seed: int) -> LandmarkResult | None:
    matches = matched.matches
    pose = solve_landmarks(matches, matched.ratio, chance_of(matches.equations, matched.region_px), prior, seed)
    if pose is None:
        return None
    return LandmarkResult(pose, matched, make_pose(pose.rotation, pose.centre))


def match_all(keypoints: Sequence[Keypoints], rig_from_camera: np.ndarray, landmarks: Landmarks) -> Matched:
    """Matches with the landmarks that were seen most, wherever they are."""
    rows = np.argsort(-landmarks.views.astype(int), kind="stable")[:_FAMILIAR]
    descriptors = landmarks.unit_descriptors[rows]
    parts = []
    for index, points in enumerate(keypoints):
        pairs, ratio = mutual_matches(points.unit_descriptors(), descriptors)
        parts.append((index, pairs[:, 0], rows[pairs[:, 1]], ratio, _field_px(points)))
    return _gather(parts, keypoints, rig_from_camera, landmarks)


def match_near(
    keypoints: Sequence[Keypoints],
    rig_from_camera: np.ndarray,
    landmarks: Landmarks,
    prior: PosePrior,
    coarse: bool = False,
) -> Matched:
    """Matches with landmarks that the prior's pose predicts near the keypoint; ``coarse``: of the strongest with the
    likeliest.
    """
    most, visible = _COARSE if coarse else (None, _VISIBLE)
    metres, radians = prior.sigmas()
    keypoints, parts = [points.strongest(most) for points in keypoints], []
    for index, points in enumerate(keypoints):
        pose = rig_from_camera[index]
        rotation = prior.rotation @ pose[:3, :3]
        centre = prior.centre + prior.rotation @ pose[:3, 3]
        rows, allowed, region = _candidates(points, rotation, centre, landmarks, metres, radians, visible)
        pairs, ratio = mutual_matches(points.unit_descriptors(), landmarks.unit_descriptors[rows], allowed)
        parts.append((index, pairs[:, 0], rows[pairs[:, 1]], ratio, region / points.sigma))
    return _gather(parts, keypoints, rig_from_camera, landmarks)


def _candidates(
    points: Keypoints,
    rotation: np.ndarray,
    centre: np.ndarray,
    landmarks: Landmarks,
    metres: float,
    radians: float,
    visible: int,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Landmarks (V,) that the image may show, which keypoint may show which (N, V) bool, and the usual search
    radius.
    """
    least = _LEAST_PX * points.sigma

    def radii(distance: np.ndarray) -> np.ndarray:
        radius = _SIGMAS * np.sqrt(radians**2 + (metres / np.maximum(distance, 1e-6)) ** 2)
        return np.clip(radius, least, _WIDEST)

    turned = points.bearings @ rotation.T
    if landmarks.kind == "points":
        arm = landmarks.exact_places - centre
        distance = np.maximum(np.sqrt(np.einsum("ij,ij->i", arm, arm)), 1e-9)
        radius = radii(distance)
        axis = turned.mean(axis=0) if len(turned) else rotation[:, 2]
        axis = axis / max(np.linalg.norm(axis), 1e-9)
        field = float(np.arccos(np.clip(turned @ axis, -1, 1)).max(initial=0.0))
        rows = np.flatnonzero(arm @ axis > distance * np.cos(np.minimum(field + radius, np.pi)))
        # Those seen from about here first: they share the errors of the poses that the map knows this place by.
        strange = landmarks.strangeness(centre, _SIGMAS * metres, rows)
        rows = rows[np.argsort(strange, kind="stable")[: min(visible, int(np.isfinite(strange).sum()))]]
        seen, radius = (arm[rows] / distance[rows, None]).astype(np.float32), radius[rows]
        allowed = turned.astype(np.float32) @ seen.T > (np.cos(radius) - 1e-7).astype(np.float32)
        return rows, allowed, float(np.median(radius)) if len(rows) else _WIDEST
    normal = landmarks.exact_places[:, 3:] - np.cross(centre, landmarks.exact_places[:, :3])
    distance = np.linalg.norm(normal, axis=1)
    normal = normal / np.maximum(distance, 1e-9)[:, None]
    rows = np.arange(len(landmarks))
    radius = radii(distance)
    allowed = np.abs(turned.astype(np.float32) @ normal.T.astype(np.float32)) < np.sin(radius).astype(np.float32)
    return rows, allowed, float(np.median(radius)) if len(rows) else _WIDEST


def _field_px(points: Keypoints) -> float:
    """Radius in pixels of a disc as large as the part of the image that keypoints are in."""
    if len(points) < 2:
        return 2 * _LEAST_PX
    width, height = np.ptp(points.bearings[:, :2], axis=0) / points.sigma
    return max(float(np.sqrt(width * height / np.pi)), 2 * _LEAST_PX)


def _gather(
    parts: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, float]],
    keypoints: Sequence[Keypoints],
    rig_from_camera: np.ndarray,
    landmarks: Landmarks,
) -> Matched:
    bearings, offsets, sigma = [], [], []
    for index, chosen, *_ in parts:
        pose = rig_from_camera[index]
        bearings.append(keypoints[index].bearings[chosen] @ pose[:3, :3].T)
        offsets.append(np.broadcast_to(pose[:3, 3], (len(chosen), 3)))
        sigma.append(np.full(len(chosen), keypoints[index].sigma))
    rows = np.concatenate([part[2] for part in parts])
    return Matched(
        matches=LandmarkMatches(
            np.concatenate(bearings), np.concatenate(offsets), landmarks.exact_places[rows], np.concatenate(sigma)
        ),
        ratio=np.concatenate([part[3] for part in parts]),
        landmarks=rows,
        camera=np.concatenate([np.full(len(part[1]), part[0]) for part in parts]),
        keypoints=np.concatenate([part[1] for part in parts]),
        region_px=float(np.median([part[4] for part in parts])),
    )
