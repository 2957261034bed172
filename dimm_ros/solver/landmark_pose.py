"""From matched landmarks to a pose: hypotheses (three points; or grown from the prior for lines), the best refined, and
how sure.

How sure is estimated a contrario (Moisan and Stival, IJCV 2004): the number of poses that would agree with as many
matches by chance, were each match somewhere at random in the region in which it was looked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from dimm_ros.solver.landmarks import LandmarkMatches, PosePrior, information, refine, squared_errors, three_point_poses

#: Neighbouring matches err alike, for their landmarks were placed by the same images: of points they count for a
#: quarter of their number; of lines for less, as wrong ones lie near a line by chance far more often than near a point.
_CORRELATED = {2: 4.0, 1: 16.0}
#: Inlier threshold in pixels of the searched image, and the kernel's width at the end.
INLIER_PX, _WIDTH = 6.0, 4.0
_PROOF_PX = (INLIER_PX, 4.0, 2.5, 1.5)
_BATCH, _BATCHES, _CONFIDENCE = 64, 8, 1e-4
_FINALISTS, _MIN_MATCHES = 4, 6
#: Lines: subsets of the matches that hypotheses are grown from, and matches of each; the kernel's widths on the way
#: from a prior.
_GROWN, _GROWN_MATCHES, _GROWING = 60, 12, [80.0, 40.0, 20.0, 10.0, 6.0]
#: So many matches, drawn at random, tell good samples from bad; so many of the clearest polish the good ones.
_JUDGES, _POLISHED = 200, 200
#: Share of matches that agree with the pose next to a precise prior from which no other is looked for, and what is
#: precise: three standard deviations of its rotation, in pixels. Next to others half of the matches may agree with a
#: worse pose.
_AGREED, _PRECISE_PX = 0.5, 32.0
_POLISHING = [12.0, 8.0, 6.0, _WIDTH, _WIDTH, _WIDTH]
#: Squared Mahalanobis distance (6 degrees of freedom, one in a thousand) from which the prior is contradicted.
_CONTRADICTED = 22.5
#: Least variance of a residual's component, square pixels, and least mean slope of psi; matches beyond the reach are
#: plain wrong.
_LEAST_VARIANCE, _LEAST_SLOPE, _REACH_PX = 0.01, 0.1, 12.0


@dataclass(frozen=True)
class LandmarkPose:
    """Pose from landmarks.

    Attributes:
        rotation, centre: (3, 3), (3,) world_from_rig.
        inliers: (N,) bool.
        information: (6, 6) of the landmarks alone, order x, y, z, rx, ry, rz: inverse of the covariance that they give.
        proof: logarithm to base 10 of how many poses would have to be tried until as many matches agree by chance.
        prior: the prior that the pose rests on as well; None where there was none, or where the landmarks contradict
            it.
        equations: that each match gives: two of points, one of lines.
    """

    rotation: np.ndarray
    centre: np.ndarray
    inliers: np.ndarray
    information: np.ndarray
    proof: float
    prior: PosePrior | None
    equations: int = 2

    @property
    def counted(self) -> np.ndarray:
        """(6, 6) the landmarks' information for what it is worth, as matches do not err independently."""
        return self.information / _CORRELATED[self.equations]

    @property
    def share(self) -> float:
        """Of the pose, how much is the landmarks' and not the prior's: 0 to 1."""
        if self.prior is None:
            return 1.0
        joined = np.linalg.inv(self.counted + self.prior.information)
        return float(1.0 - np.trace(joined @ self.prior.information) / 6)


def solve_landmarks(
    matches: LandmarkMatches, ratio: np.ndarray, chance: float, prior: PosePrior | None = None, seed: int = 0
) -> LandmarkPose | None:
    """Pose from keypoints matched with landmarks.

    Args:
        matches: of a rig's cameras, or of one.
        ratio: (N,) how clear each match is, lower is clearer.
        chance: probability that a wrong match agrees with a pose, see ``chance_of``.
        prior: pose and information to start from and to join.
        seed: of the sampling.

    Returns:
        None when no pose agrees with enough matches. Lines without a prior need PoseLib, else the result is None.
    """
    if len(matches) < _MIN_MATCHES:
        return None
    found = _searched(matches, ratio, prior, np.random.default_rng(seed))
    if found is None:
        return None
    rotation, centre = found
    joined = prior
    if prior is not None and _contradicts(rotation, centre, matches, prior):
        joined = None
    rotation, centre = refine(rotation[None], centre[None], matches, [_WIDTH] * 4, joined)
    errors = squared_errors(rotation, centre, matches)[0]
    inliers = errors < INLIER_PX**2
    if inliers.sum() < _MIN_MATCHES:
        return None
    rotation, centre = rotation[0], centre[0]
    if not (np.isfinite(rotation).all() and np.isfinite(centre).all()):
        return None
    return LandmarkPose(
        rotation=rotation,
        centre=centre,
        inliers=inliers,
        information=_information(rotation, centre, errors, matches),
        proof=best_proof(errors, chance, matches.equations),
        prior=joined,
        equations=matches.equations,
    )


def _searched(
    matches: LandmarkMatches, ratio: np.ndarray, prior: PosePrior | None, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """The pose (3, 3), (3,) that agrees best with matches and prior."""
    clear = matches.at(np.argsort(ratio, kind="stable")[:_POLISHED])
    near = (np.empty((0, 3, 3)), np.empty((0, 3)))
    if prior is not None:
        prior_px = 3.0 * prior.sigmas()[1] / clear.sigma.min()
        # What is much wider than the prior's error in rotation tells nothing; the narrowest stays.
        growing = [width for width in _GROWING[:-1] if width < prior_px] + _GROWING[-1:]
        near = refine(prior.rotation[None], prior.centre[None], clear, growing + _POLISHING, prior)
        if prior_px < _PRECISE_PX and np.mean(squared_errors(*near, clear) < INLIER_PX**2) > _AGREED:
            return near[0][0], near[1][0]
    hypotheses = _point_hypotheses if matches.equations == 2 else _line_hypotheses
    rotation, centre = hypotheses(matches, ratio, prior, generator)
    if len(rotation):
        rotation, centre = refine(rotation, centre, clear, _POLISHING)
    rotation, centre = np.concatenate([rotation, near[0]]), np.concatenate([centre, near[1]])
    if not len(rotation):
        return None
    cost = _cost(rotation, centre, matches)
    if prior is not None:
        # A small flat patch looks nearly alike from two sides: of poses that agree with as many landmarks, the prior
        # chooses.
        away = prior.difference(rotation, centre)
        cost = cost + np.minimum(((away @ prior.information) * away).sum(axis=1), _CONTRADICTED)
    best = int(cost.argmin())
    return rotation[best], centre[best]


def chance_of(equations: int, region_px: float) -> float:
    """Probability that a wrong match lies within the threshold of a pose's prediction.

    Args:
        equations: two for points, one for lines.
        region_px: radius in pixels of the region that the match was looked for in.
    """
    return min(0.9, (INLIER_PX / region_px) ** equations)


def best_proof(errors: np.ndarray, chance: float, equations: int) -> float:
    """The proof at the threshold that tells most: in a narrow region only matches that agree closely say anything.

    Args:
        errors: (N,) squared errors of all matches, square pixels.
        chance: see ``chance_of``.
        equations: two for points, one for lines.
    """
    shares = np.array(_PROOF_PX) / INLIER_PX
    found = [
        proof(int((errors < (share * INLIER_PX) ** 2).sum()), len(errors), chance * share**equations, equations)
        for share in shares
    ]
    return max(found) - math.log10(len(found))  # so many thresholds were tried


def proof(inliers: int, matches: int, chance: float, equations: int) -> float:
    """-log10 of the number of false alarms: poses of minimal samples that would agree as well by chance."""
    sample = 3 if equations == 2 else 6
    if inliers <= sample:
        return -math.inf

    def choose(n: int, k: int) -> float:
        return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    tests = math.log(max(matches - sample, 1)) + choose(matches, inliers) + choose(inliers, sample)
    return -(tests + (inliers - sample) * math.log(chance)) / math.log(10)


def _cost(rotation: np.ndarray, centre: np.ndarray, matches: LandmarkMatches) -> np.ndarray:
    """(H,) MSAC scores, lower is better."""
    cost = np.minimum(squared_errors(rotation, centre, matches), INLIER_PX**2).sum(axis=1)
    return np.where(np.isfinite(cost), cost, np.inf)


def _point_hypotheses(
    matches: LandmarkMatches, ratio: np.ndarray, prior: PosePrior | None, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The best poses of three matches each, drawn until a better one is improbable, and the prior's."""
    camera = np.unique(matches.offsets.round(9), axis=0, return_inverse=True)[1].ravel()
    clear = np.argsort(ratio, kind="stable")
    judges = matches.at(generator.permutation(len(matches))[:_JUDGES])
    found, costs = [], []
    if prior is not None:
        found.append((prior.rotation[None], prior.centre[None]))
        costs.append(_cost(prior.rotation[None], prior.centre[None], judges))
    for batch in range(_BATCHES):
        # Clear matches first, all of them in the end (PROSAC's order).
        among = clear[: max(_MIN_MATCHES, math.ceil(len(clear) * (batch + 1) / _BATCHES), 30)]
        sample = among[generator.integers(0, len(among), (_BATCH, 3))]
        sample = sample[(camera[sample] == camera[sample[:, :1]]).all(axis=1)]
        rotation, origin, which = three_point_poses(matches.bearings[sample], matches.places[sample])
        if not len(rotation):
            continue
        offset = matches.offsets[sample[which, 0]]
        centre = origin - (rotation @ offset[:, :, None])[:, :, 0]
        cost = _cost(rotation, centre, judges)
        best = np.argsort(cost)[:_FINALISTS]
        found.append((rotation[best], centre[best]))
        costs.append(cost[best])
        agreeing = 1.0 - np.concatenate(costs).min() / (INLIER_PX**2 * len(judges))
        if (1.0 - agreeing**3) ** (_BATCH * (batch + 1)) < _CONFIDENCE:
            break
    if not found:
        return np.empty((0, 3, 3)), np.empty((0, 3))
    order = np.argsort(np.concatenate(costs))[:_FINALISTS]
    return np.concatenate([pose[0] for pose in found])[order], np.concatenate([pose[1] for pose in found])[order]


def _line_hypotheses(
    matches: LandmarkMatches, ratio: np.ndarray, prior: PosePrior | None, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Poses grown from the prior on a few matches each; without a prior, of six matches each (PoseLib)."""
    if prior is None:
        rotation, centre = _six_line_poses(matches, ratio, generator)
    else:
        sample = generator.random((_GROWN, len(matches))).argsort(axis=1)[:, :_GROWN_MATCHES]
        rotation, centre = (
            np.repeat(prior.rotation[None], _GROWN, axis=0),
            np.repeat(prior.centre[None], _GROWN, axis=0),
        )
        rotation, centre = refine(rotation, centre, matches.at(sample), _GROWING, prior)
        alone = refine(prior.rotation[None], prior.centre[None], matches, _GROWING)
        rotation, centre = np.concatenate([rotation, alone[0]]), np.concatenate([centre, alone[1]])
    if not len(rotation):
        return rotation, centre
    order = np.argsort(_cost(rotation, centre, matches))[: 2 * _FINALISTS]
    return rotation[order], centre[order]


_SIX_LINE_SAMPLES, _SIX_LINE_MATCHES = 200, 200


def _six_line_poses(
    matches: LandmarkMatches, ratio: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Six rays of one camera and the six lines they meet are the generalised relative pose problem (Stewenius et al.,
    2005).
    """
    try:
        from poselib import gen_relpose_6pt
    except ImportError:
        return np.empty((0, 3, 3)), np.empty((0, 3))
    among = np.argsort(ratio, kind="stable")[:_SIX_LINE_MATCHES]
    line, moment = matches.places[:, :3], matches.places[:, 3:]
    foot = np.cross(line, moment)  # the line's point nearest to the origin, as l is of length one
    rotations, centres = [], []
    for _ in range(_SIX_LINE_SAMPLES):
        rows = generator.choice(among, 6, replace=False)
        for pose in gen_relpose_6pt(matches.offsets[rows], matches.bearings[rows], foot[rows], line[rows]):
            # PoseLib's pose takes the first system to the second: rig to world.
            rotations.append(np.asarray(pose.R))
            centres.append(np.asarray(pose.t))
    if not rotations:
        return np.empty((0, 3, 3)), np.empty((0, 3))
    rotation, centre = np.stack(rotations), np.stack(centres)
    rows = among[:60]  # enough to tell the good ones from the thousands of others
    order = np.argsort(_cost(rotation, centre, matches.at(rows)))[: 8 * _FINALISTS]
    return rotation[order], centre[order]


def _contradicts(rotation: np.ndarray, centre: np.ndarray, matches: LandmarkMatches, prior: PosePrior) -> bool:
    """Whether the landmarks' pose is further from the prior than both allow."""
    errors = squared_errors(rotation[None], centre[None], matches)[0]
    inliers = errors < INLIER_PX**2
    if inliers.sum() < 2 * _MIN_MATCHES:
        return False
    own = _information(rotation, centre, errors, matches)
    away = prior.difference(rotation, centre)
    spread = np.linalg.inv(prior.information) + np.linalg.inv(own + 1e-9 * np.trace(own) * np.eye(6))
    return bool(away @ np.linalg.solve(spread, away) > _CONTRADICTED)


def _information(rotation: np.ndarray, centre: np.ndarray, errors: np.ndarray, matches: LandmarkMatches) -> np.ndarray:
    """(6, 6) inverse covariance of the kernel's estimate (Huber's asymptotic theory), from (N,) squared errors.

    The kernel's psi is w e, with w = (1 + e^2 / width^2)^-2: the variance of psi over the square of its mean slope
    stands for the noise's variance. It grows with what the kernel leaves out, as in blurred images, where the inliers'
    own scatter does not.
    """
    equations, near = matches.equations, errors < _REACH_PX**2
    ratio = errors[near] / _WIDTH**2
    weight = (1.0 + ratio) ** -2
    slope = (weight - (4.0 / equations) * ratio * (1.0 + ratio) ** -3).mean()
    freedom = max(equations * len(ratio) - 6, 1)
    variance = (weight**2 * errors[near]).sum() / freedom / max(slope, _LEAST_SLOPE) ** 2
    return information(rotation, centre, matches.at(near), max(float(variance), _LEAST_VARIANCE))
