"""From rays to a pose: rotation RANSAC, centre RANSAC, joint refinement, covariance."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from dimm_ros.config import SolverConfig
from dimm_ros.solver.centre import estimate_centre
from dimm_ros.solver.matches import RayMatches, match_rays
from dimm_ros.solver.rays import angle_between
from dimm_ros.solver.refine import pose_covariance, refine_pose, residuals
from dimm_ros.solver.rotation import estimate_rotation

#: Two rays fix a pose; the third is the least that can confirm it.
MIN_RAYS = 3

#: Variance (square metres, square radians) of a pose that says nothing: finite, because filters require it.
_UNKNOWN_VARIANCE = 1e6


@dataclass(frozen=True)
class PoseSolution:
    """Pose solved from rays; tensors lie on the device of the rays.

    Attributes:
        world_from_camera: (4, 4) float64, metres, optical axes; world_from_rig when solved for a rig. The identity when
            nothing could be solved (``ok`` is false).
        covariance: (6, 6) float64, order x, y, z, rx, ry, rz about fixed world axes: the left perturbation
            R <- exp([a]x) R, c <- c + dc. Metres and radians.
        rotation_inliers: (N,) bool, rays whose direction agrees with the pose.
        centre_inliers: (N,) bool, rays whose moment agrees with the pose.
        angle_residual: (N,) radians between R u and d; NaN for dropped rays.
        centre_residual: (N,) metres, |c x (R u) - m|; NaN for dropped rays.
        ok: whether at least three rays agree on one pose.
        reason: one sentence when not ok, else empty.
    """

    world_from_camera: Tensor
    covariance: Tensor
    rotation_inliers: Tensor
    centre_inliers: Tensor
    angle_residual: Tensor
    centre_residual: Tensor
    ok: bool
    reason: str


def solve_pose(
    camera_rays: Tensor,
    directions: Tensor,
    moments: Tensor,
    *,
    direction_sigma: Tensor | None = None,
    moment_sigma: Tensor | None = None,
    config: SolverConfig = SolverConfig(),
    covariance_scale: float = 1.0,
) -> PoseSolution:
    """Pose of one camera.

    The result follows a rotation and a scaling of the world (with its thresholds) exactly. A shift of the world's
    origin multiplies direction errors into the moments, so the origin should lie among the cameras, where maps put it.

    Args:
        camera_rays: (N, 3) rays of the pixels, optical frame, from the calibrated camera.
        directions: (N, 3) predicted directions, world frame; normalised inside.
        moments: (N, 3) predicted moments c x d, metres, about the world's origin.
        direction_sigma: (N,) predicted scale of the direction error, radians, or None.
        moment_sigma: (N,) predicted scale of the moment error, metres, or None.
        config: thresholds, numbers of hypotheses and seed.
        covariance_scale: factor on the covariance, calibrated on frames with known poses, because errors of
            neighbouring patches are correlated.

    Returns:
        A PoseSolution; bad data (too few rays, parallel rays, NaN) give ``ok`` false with a reason, never an exception.

    Raises:
        ValueError: shapes that do not match.
    """
    return _solve(camera_rays, None, directions, moments, direction_sigma, moment_sigma, config, covariance_scale)


def solve_rig(
    camera_rays: Sequence[Tensor],
    rig_from_camera: Sequence[Tensor],
    directions: Sequence[Tensor],
    moments: Sequence[Tensor],
    *,
    direction_sigma: Sequence[Tensor] | None = None,
    moment_sigma: Sequence[Tensor] | None = None,
    config: SolverConfig = SolverConfig(),
    covariance_scale: float = 1.0,
) -> PoseSolution:
    """Pose of cameras with known relative poses: a rig, or frames of one camera linked by odometry.

    Args:
        camera_rays: for each camera (N_i, 3), its optical frame.
        rig_from_camera: for each camera its (4, 4) pose in the rig, metres.
        directions: for each camera (N_i, 3), world frame.
        moments: for each camera (N_i, 3), metres, about the world's origin.
        direction_sigma: for each camera (N_i,) radians, or None.
        moment_sigma: for each camera (N_i,) metres, or None.
        config, covariance_scale: as for ``solve_pose``.

    Returns:
        As ``solve_pose``, with world_from_rig as its pose and the rays of all cameras in the order given.

    Raises:
        ValueError: shapes or numbers of cameras that do not match.
    """
    if not len(camera_rays) == len(rig_from_camera) == len(directions) == len(moments) > 0:
        raise ValueError("a rig needs rays, a pose, directions and moments for each of its cameras")
    bearings, offsets = list(camera_rays), None
    # A camera that is the rig itself needs no product, and no upload, for which a GPU would wait.
    if not all(torch.equal(pose, torch.eye(4, dtype=pose.dtype, device=pose.device)) for pose in rig_from_camera):
        poses = [pose.to(dtype=torch.float64, device=rays.device) for rays, pose in zip(camera_rays, rig_from_camera)]
        bearings = [rays.to(torch.float64) @ pose[:3, :3].T for rays, pose in zip(camera_rays, poses)]
        offsets = torch.cat([pose[:3, 3].expand(len(rays), 3) for rays, pose in zip(camera_rays, poses)])
    return _solve(
        torch.cat(bearings),
        offsets,
        torch.cat(list(directions)),
        torch.cat(list(moments)),
        None if direction_sigma is None else torch.cat(list(direction_sigma)),
        None if moment_sigma is None else torch.cat(list(moment_sigma)),
        config,
        covariance_scale,
    )


@torch.no_grad()
def _solve(
    bearings: Tensor,
    offsets: Tensor | None,
    directions: Tensor,
    moments: Tensor,
    direction_sigma: Tensor | None,
    moment_sigma: Tensor | None,
    config: SolverConfig,
    covariance_scale: float,
) -> PoseSolution:
    count = len(bearings)
    for name, tensor, shape in (
        ("rays", bearings, (count, 3)),
        ("directions", directions, (count, 3)),
        ("moments", moments, (count, 3)),
        ("direction_sigma", direction_sigma, (count,)),
        ("moment_sigma", moment_sigma, (count,)),
    ):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, not {tuple(tensor.shape)}")
    if count < MIN_RAYS:
        return _failure(count, bearings.device, f"The image gives {count} rays; a pose needs at least {MIN_RAYS}.")

    with _one_thread(bearings.device):
        matches = match_rays(bearings, offsets, directions, moments, direction_sigma, moment_sigma, config)
        return _solve_matches(matches, config, covariance_scale)


def _solve_matches(matches: RayMatches, config: SolverConfig, covariance_scale: float) -> PoseSolution:
    """All stages, with a single wait for the device near the end."""
    count, device = len(matches.valid), matches.valid.device
    rotation, rotation_found = estimate_rotation(matches, config)
    centre, centre_found = estimate_centre(matches, rotation, config)
    if config.refine:
        rotation, centre = refine_pose(rotation, centre, matches, config.refine_steps)
    covariance = pose_covariance(rotation, centre, matches) * covariance_scale

    error = residuals(rotation, centre, matches)
    angle = angle_between(matches.bearings @ rotation.T, matches.directions)
    distance = torch.linalg.vector_norm(error[:, 1], dim=1)
    rotation_inliers = matches.valid & (torch.linalg.vector_norm(error[:, 0], dim=1) < matches.chord_limits)
    centre_inliers = matches.valid & (distance < matches.moment_limits)
    finite = torch.isfinite(centre).all() & torch.isfinite(covariance).all()
    checks = [matches.valid.sum(), rotation_found, rotation_inliers.sum(), centre_found, centre_inliers.sum(), finite]
    checks = torch.stack([check.long() for check in checks]).tolist()  # the one wait for the device
    reason = _reason(count, checks, config)
    if reason and not (checks[1] and checks[3] and checks[5]):
        return _failure(count, device, reason)

    pose = torch.eye(4, dtype=torch.float64, device=device)
    pose[:3, :3], pose[:3, 3] = rotation, centre
    return PoseSolution(
        world_from_camera=pose,
        covariance=covariance,
        rotation_inliers=rotation_inliers,
        centre_inliers=centre_inliers,
        angle_residual=torch.where(matches.valid, angle, torch.nan),
        centre_residual=torch.where(matches.valid, distance, torch.nan),
        ok=not reason,
        reason=reason,
    )


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On the CPU, run torch's operations in the calling thread.

    The solver's matrices are too small to share out, and where other processes keep the cores busy each hand-over waits
    for the scheduler, which can take longer than the whole solve. Only the calling thread's own setting changes:
    torch.set_num_threads would change the process's, too, and a thread that first uses torch meanwhile would keep it.
    """
    if device.type != "cpu" or torch.get_num_threads() == 1:  # asking also lets torch give a new thread its number
        yield
        return
    setters = _thread_setters()
    before = [setter(1) for setter in setters]
    try:
        yield
    finally:
        for setter, number in zip(setters, before):
            setter(number)


@cache
def _thread_setters() -> tuple[Callable[[int], int], ...]:
    """What sets the calling thread's number of threads (OpenMP's, and MKL's if it is there); each returns the old."""
    library = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
    try:
        torch_cpu = ctypes.CDLL(library)  # loaded already: found by its name
        openmp_set, openmp_get = torch_cpu.omp_set_num_threads, torch_cpu.omp_get_max_threads
    except (OSError, AttributeError):  # a build without OpenMP
        return ()

    def set_openmp(number: int) -> int:
        before = openmp_get()
        openmp_set(number)
        return before

    set_mkl = getattr(torch_cpu, "MKL_Set_Num_Threads_Local", None)  # returns what it was; 0 means the process's
    return (set_openmp,) if set_mkl is None else (set_openmp, set_mkl)


def _reason(count: int, checks: list[int], config: SolverConfig) -> str:
    """The sentence that says why there is no pose; empty when there is one."""
    valid, rotation_found, rotating, centre_found, meeting, finite = checks
    if valid < MIN_RAYS:
        return f"Only {valid} of {count} rays are finite; a pose needs at least {MIN_RAYS}."
    if not (rotation_found and centre_found):
        return (
            f"No two of the {valid} rays lie {config.min_pair_angle_deg:g} deg apart and keep that angle between "
            "camera and map: "
            "the rays are nearly parallel, or this view is not of the map."
        )
    if rotating < MIN_RAYS:
        limit = f"{config.rotation_threshold_deg:g} deg"
        return f"Only {rotating} of {valid} rays agree on a rotation within {limit}; a pose needs at least {MIN_RAYS}."
    if meeting < MIN_RAYS:
        limit = f"{config.centre_threshold:g} m"
        return f"Only {meeting} of {valid} rays meet in a point within {limit}; a pose needs at least {MIN_RAYS}."
    if not finite:
        return (
            f"The {valid} rays leave the pose undetermined; they are nearly parallel or their moments are out of range."
        )
    return ""


def _failure(count: int, device: torch.device, reason: str) -> PoseSolution:
    nothing = torch.zeros(count, dtype=torch.bool, device=device)
    unknown = torch.full((count,), torch.nan, dtype=torch.float64, device=device)
    return PoseSolution(
        world_from_camera=torch.eye(4, dtype=torch.float64, device=device),
        covariance=_UNKNOWN_VARIANCE * torch.eye(6, dtype=torch.float64, device=device),
        rotation_inliers=nothing,
        centre_inliers=nothing.clone(),
        angle_residual=unknown,
        centre_residual=unknown.clone(),
        ok=False,
        reason=reason,
    )
