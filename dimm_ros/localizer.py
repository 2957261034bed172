"""``Localizer``: a map, its encoder and a solver; ``localize(image, camera)`` reads like the paper."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dimm_ros.config import EVERY_RAY, AcceptanceConfig, SolverConfig
from dimm_ros.encoder.dinov2 import Encoder, Tokens, choose_device
from dimm_ros.encoder.patches import PatchGrid, fit, normalise, patch_grid, thinned
from dimm_ros.errors import InputError, WeightsError
from dimm_ros.estimate import Estimate, Observation
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import is_rigid
from dimm_ros.head.model import Rays
from dimm_ros.runtime.network import OnnxNetwork, Provider, network_path
from dimm_ros.scene_map import SceneMap
from dimm_ros.solver import PoseSolution, solve_pose, solve_rig
from dimm_ros.solver.window import calibrated_covariance, effective_images, redundancy
from dimm_ros.uncalibrated import encode_image, find_focal, square_camera


class Localizer:
    """Localizes images in one map.

    Attributes:
        map: the scene map.
        encoder: the encoder that the map was trained with, or the network exported from the map.
        solver: thresholds of the two RANSACs.
        acceptance: when an estimate is good enough.
    """

    def __init__(
        self, scene_map: SceneMap, encoder: Encoder | OnnxNetwork, solver: SolverConfig | None = None,
        acceptance: AcceptanceConfig | None = None,
    ) -> None:
        header = scene_map.header
        if encoder.weights.sha256 != header.encoder_sha256 or encoder.config != header.encoder:
            raise WeightsError(
                f"Map '{header.name}' was made with {header.encoder.name} (SHA-256 {header.encoder_sha256[:12]}..., input size "
                f"{header.encoder.input_size}), not with this encoder; open it with Localizer.open."
            )
        self.map, self.encoder = scene_map, encoder
        self.solver, self.acceptance = solver or SolverConfig(), acceptance or AcceptanceConfig()

    @classmethod
    def open(
        cls, map_path: str | Path, *, device: str = "auto", weights: str | Path | None = None,
        solver: SolverConfig | None = None, acceptance: AcceptanceConfig | None = None,
        backend: Literal["torch", "onnx"] = "torch", onnx_provider: Provider = "auto",
    ) -> Localizer:
        """Load a map and the encoder it names, or (``backend`` onnx) the network that 'dimm export' wrote beside the map.

        Raises:
            MapError: the file is missing or damaged, or the network is not of this map.
            WeightsError: the encoder's weights are nowhere to be found, or are not those the map was trained with.
            InputError: a device, back end or provider that is not here.
        """
        target = choose_device(device)
        scene_map = SceneMap.load(map_path, target)
        header = scene_map.header
        if backend == "onnx":
            network = OnnxNetwork.open(network_path(map_path), map_path, header, target, onnx_provider)
            return cls(scene_map, network, solver, acceptance)
        if backend != "torch":
            raise InputError(f"The back end '{backend}' is not known; choose torch or onnx.")
        encoder = Encoder.open(header.encoder, device=device, weights=weights, sha256=header.encoder_sha256)
        return cls(scene_map, encoder, solver, acceptance)

    @property
    def frame_id(self) -> str:
        """Name of the map's world frame."""
        return self.map.header.frame_id

    @property
    def name(self) -> str:
        """The map's name."""
        return self.map.header.name

    def asking_every_patch(self) -> Localizer:
        """The same, but for rays that are to be seen: no patch is left out."""
        return Localizer(self.map, self.encoder, self.solver.changed(rays=EVERY_RAY), self.acceptance)

    def warm_up(self, camera: Camera) -> None:
        """Run once on a grey image, so that the first real image is not the slow one."""
        self.localize(np.full((camera.height, camera.width, 3), 127, dtype=np.uint8), camera)

    def localize(self, image: np.ndarray, camera: Camera) -> Estimate:
        """Pose of one (H, W, 3) uint8 RGB image.

        Raises:
            InputError: the image's size is not the camera's, or it is not RGB uint8.
        """
        return self._solve([self.observe(image, camera)], np.eye(4)[None])

    def localize_rig(self, images: Sequence[np.ndarray], cameras: Sequence[Camera], base_from_cameras: Sequence[np.ndarray]) -> Estimate:
        """Pose of a base, world_from_base, from images that its cameras took at one instant.

        Args:
            images: (H, W, 3) uint8 RGB each.
            cameras: of each image.
            base_from_cameras: (4, 4) pose of each camera (optical axes) in the base frame, metres.

        Raises:
            InputError: as ``localize``; no image, lists of different lengths, or a pose that is not rigid.
        """
        poses = _checked(images, cameras, base_from_cameras)
        return self._solve(self.observe_all(images, cameras), poses)

    def localize_window(self, images: Sequence[np.ndarray], cameras: Sequence[Camera], relative_poses: Sequence[np.ndarray]) -> Estimate:
        """Pose of the newest camera from the frames of a short odometry window; see ``solve_window``, which encodes nothing again.

        Args:
            images: (H, W, 3) uint8 RGB each, oldest first.
            cameras: of each image.
            relative_poses: newest_from_camera of each image, (4, 4), metres; the last is the identity.

        Raises:
            InputError: as ``localize_rig``; the last pose is not the identity.
        """
        poses = _checked(images, cameras, relative_poses)
        if not np.allclose(poses[-1], np.eye(4), atol=1e-6):
            raise InputError("The last relative pose must be the identity: poses are those of each camera in the newest camera's frame.")
        observations = self.observe_all(images, cameras)
        estimate = self.solve_window(observations, relative_poses)
        return replace(estimate, stage_ms=_stages(observations, estimate.stage_ms["solve"]))

    def solve_window(self, observations: Sequence[Observation], newest_from_observed: Sequence[np.ndarray], newest: int = 1) -> Estimate:
        """Joint pose of images whose relative poses are known: a window of frames, of one camera or of a rig.

        If the newest images contradict the joint pose, or that is rejected, the earlier ones are left out: odometry does not know
        that the robot was carried away, and neither may its last images speak for an image that was taken elsewhere, or of nothing.

        Args:
            observations: oldest first.
            newest_from_observed: (4, 4) pose of each observation's camera (at its own time) in the newest base frame, or in the
                newest camera's; the estimate is the pose of that frame. Odometry's error over the window is not in the covariance.
            newest: how many of the last observations belong to the newest instant.

        Raises:
            InputError: no observation, lists of different lengths, or a pose that is not rigid.
        """
        poses = _checked(observations, newest_from_observed)
        if not 1 <= newest <= len(observations):
            raise InputError(f"A window of {len(observations)} images cannot have {newest} newest ones; give 1 to {len(observations)}.")
        estimate = self._solve(observations, poses, newest)
        if newest == len(observations):
            return estimate
        agreeing, novelty = float(np.mean(estimate.image_inlier_ratios[-newest:])), _median_novelty(observations[-newest:])
        if estimate.accepted and not self._why_rejected(agreeing, estimate.covariance, novelty):
            return estimate
        return self._solve(observations[-newest:], poses[-newest:])

    def localize_unknown_focal(self, image: np.ndarray) -> tuple[Estimate, Camera]:
        """Pose of one (H, W, 3) uint8 RGB image of an uncalibrated camera, and that camera; ``uncalibrated`` says what is assumed.

        One image tells the focal length to a few per cent; ``uncalibrated.estimate_camera`` of several images is better.

        Raises:
            InputError: the image is not RGB uint8, or no focal length explains it.
        """
        clock = _Clock(self.encoder.device)
        with clock("encode"):
            tokens = encode_image(self, image)
        with clock("head"):
            height, width = image.shape[:2]
            camera = square_camera(width, height, find_focal(self, tokens, image.shape))
            grid = self._grid(camera)
            rays = self.predict_rays(tokens, grid)
        times = {"prepare": 0.0} | clock.stages
        return self._solve([Observation(grid, rays, tokens.context[0], tokens.cls[0], times)], np.eye(4)[None]), camera

    def observe(self, image: np.ndarray, camera: Camera) -> Observation:
        """Rays of one (H, W, 3) uint8 RGB image; raises as ``localize``."""
        return self.observe_all([image], [camera])[0]

    def observe_all(self, images: Sequence[np.ndarray], cameras: Sequence[Camera]) -> list[Observation]:
        """Rays of images; those of one size are encoded as one batch, and share its time evenly.

        Raises:
            InputError: as ``localize``; lists of different lengths.
        """
        if len(images) != len(cameras):
            raise InputError(f"{len(images)} images but {len(cameras)} cameras were given; each image needs its camera.")
        grids = [self._grid(camera) for camera in cameras]
        sizes: dict[tuple[int, int], list[int]] = {}
        for index, grid in enumerate(grids):
            sizes.setdefault((grid.rows, grid.columns), []).append(index)
        result: dict[int, Observation] = {}
        for members in sizes.values():
            clock = _Clock(self.encoder.device)
            with clock("prepare"):
                prepared = [normalise(fit(images[index], cameras[index], grids[index])) for index in members]
                pixels = torch.from_numpy(prepared[0][None] if len(prepared) == 1 else np.stack(prepared))
            if isinstance(self.encoder, OnnxNetwork):
                with clock("encode"):
                    context, cls, rays = self.encoder.observe(pixels, [grids[index].rays for index in members])
                    rays = [each.at(_uploaded(grids[index], each.directions.device)[0]) for each, index in zip(rays, members, strict=True)]
                clock.stages["head"] = 0.0  # one graph with the encoder
            else:
                with clock("encode"):
                    tokens = self.encoder.encode(pixels)
                    context, cls = tokens.context, tokens.cls
                with clock("head"):
                    rays = [self.predict_rays(tokens, grids[index], row) for row, index in enumerate(members)]
            share = {stage: ms / len(members) for stage, ms in clock.stages.items()}
            for row, index in enumerate(members):
                result[index] = Observation(grids[index], rays[row], context[row], cls[row], share)
        return [result[index] for index in range(len(images))]

    @torch.inference_mode()
    def predict_rays(self, tokens: Tokens, grid: PatchGrid, row: int = 0) -> Rays:
        """World rays of one image's valid patches (that of a row of the batch), in the map's normalised frame."""
        valid, camera_rays, _ = _uploaded(grid, self.encoder.device)
        return self.map.head(tokens.patches[row][valid].float(), tokens.context[row, None].float(), camera_rays)

    def solve(self, rays: Rays, grid: PatchGrid) -> PoseSolution:
        """Pose from one image's rays: metres, about the map's origin (the solver's noise grows with the distance from it)."""
        return solve_pose(**self._solvable(rays, grid), config=self.solver)

    @torch.inference_mode()
    def _solvable(self, rays: Rays, grid: PatchGrid) -> dict[str, torch.Tensor | None]:
        """The solver's arguments, metres."""
        return {"camera_rays": _uploaded(grid, rays.directions.device)[2]} | rays.in_metres(self.map.header.radius)

    def _grid(self, camera: Camera) -> PatchGrid:
        """The camera's patches, no more than are worth asking."""
        return thinned(patch_grid(camera, self.encoder.config.input_size), self.solver.rays)

    def _solve(self, observations: Sequence[Observation], poses: np.ndarray, newest: int | None = None) -> Estimate:
        """The joint estimate of observations at (K, 4, 4) poses in the base; ``newest`` of them count for the time (all)."""
        clock = _Clock(self.encoder.device)
        with clock("solve"):
            parts = [self._solvable(each.rays, each.grid) for each in observations]
            if len(parts) == 1 and np.array_equal(poses[0], np.eye(4)):
                solution = solve_pose(**parts[0], config=self.solver)
            else:
                joint: dict = {name: [part[name] for part in parts] for name in parts[0]}
                if not self.map.header.head.confidence:
                    joint["direction_sigma"] = joint["moment_sigma"] = None
                solution = solve_rig(rig_from_camera=list(torch.from_numpy(poses)), **joint, config=self.solver)
        return self._judge(solution, observations, poses, _stages(observations[-(newest or len(observations)):], clock.stages["solve"]))

    def _judge(
        self, solution: PoseSolution, observations: Sequence[Observation], poses: np.ndarray, stage_ms: dict[str, float],
    ) -> Estimate:
        """The solution in the map frame with calibrated covariance, accepted or not."""
        header, last = self.map.header, observations[-1]
        world_from_base = solution.world_from_camera.cpu().numpy().copy()
        world_from_base[:3, 3] += header.origin
        rays = np.array([each.grid.valid.sum() for each in observations])
        agreeing = (solution.rotation_inliers & solution.centre_inliers).cpu().numpy()
        inliers = np.array([part.sum() for part in np.split(agreeing, np.cumsum(rays)[:-1])])
        arm = world_from_base[:3, :3] @ (inliers @ poses[:, :3, 3]) / max(inliers.sum(), 1)
        novelty = _median_novelty(observations)
        covariance = calibrated_covariance(
            solution.covariance.cpu().numpy(), arm, *header.calibration.sigmas(novelty), redundancy(poses, inliers), effective_images(inliers),
            float(np.mean([each.grid.asked for each in observations])),
        )
        ratio = inliers.sum() / max(rays.sum(), 1)
        reason = solution.reason if not solution.ok else self._why_rejected(ratio, covariance, novelty)
        angle, distance = (residual.cpu().numpy()[len(agreeing) - rays[-1]:] for residual in (solution.angle_residual, solution.centre_residual))
        return Estimate(
            world_from_base, covariance, not reason, reason, int(inliers.sum()), int(rays.sum()), stage_ms, last.cls.float().cpu().numpy(),
            np.degrees(_on_grid(angle, last.grid)), _on_grid(distance, last.grid), self._in_map(last.rays, last.grid),
            tuple((inliers / np.maximum(rays, 1)).tolist()), novelty, _on_grid(agreeing[len(agreeing) - rays[-1]:], last.grid) == 1,
        )

    def _in_map(self, predicted: Rays, grid: PatchGrid) -> np.ndarray:
        """Predicted rays in metres about the map frame's origin."""
        directions, moments = (part.float().cpu().numpy().astype(np.float64) for part in (predicted.directions, predicted.moments))
        moments = moments * self.map.header.radius + np.cross(self.map.header.origin, directions)
        return _on_grid(np.concatenate([directions, moments], axis=-1), grid)

    def _why_rejected(self, inlier_ratio: float, covariance: np.ndarray, novelty: float | None) -> str:
        rules, most = self.acceptance, self.map.header.calibration.max_novelty
        if novelty is not None and most is not None and novelty > most * rules.novelty_scale:
            limit = most * rules.novelty_scale
            return f"The image is unlike every mapped view (novelty {novelty:.2f}, at most {limit:.2f}): it is probably not of this map."
        if not np.isfinite(covariance).all():
            return "The pose's covariance is not finite: the rays do not fix it."
        sigma = np.sqrt(np.maximum(np.diag(covariance), 0))
        position, rotation = sigma[:3].max(), np.degrees(sigma[3:].max())
        if inlier_ratio < rules.min_inlier_ratio:
            return f"Only {inlier_ratio:.0%} of the rays agree (at least {rules.min_inlier_ratio:.0%} must): the view is probably not of this map."
        if position > rules.max_position_sigma:
            return f"The position is uncertain by {position:.2f} m (at most {rules.max_position_sigma:g} m is accepted)."
        if rotation > rules.max_rotation_sigma_deg:
            return f"The rotation is uncertain by {rotation:.1f} deg (at most {rules.max_rotation_sigma_deg:g} deg is accepted)."
        return ""


def _median_novelty(observations: Sequence[Observation]) -> float | None:
    """Median novelty of the images, None for a map that knows none."""
    known = [float(each.rays.novelty[0]) for each in observations if each.rays.novelty is not None]
    return float(np.median(known)) if known else None


class _Clock:
    """Times named stages in milliseconds; waits for CUDA so that a stage's time is its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.stages: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.stages[stage] = (time.perf_counter() - start) * 1e3


def _stages(observations: Sequence[Observation], solve_ms: float) -> dict[str, float]:
    """Summed times of the observations' stages and of the solver, and their total."""
    stages = {stage: sum(each.stage_ms[stage] for each in observations) for stage in observations[0].stage_ms}
    stages["solve"] = solve_ms
    return stages | {"total": sum(stages.values())}


def _checked(*lists: Sequence) -> np.ndarray:
    """The last list's poses as (K, 4, 4), when all lists have one length above zero and the poses are rigid."""
    counts = {len(each) for each in lists}
    if counts == {0}:
        raise InputError("No image was given; a pose needs at least one.")
    if len(counts) > 1:
        raise InputError(f"Lists of {', '.join(str(len(each)) for each in lists)} entries were given; each image needs its camera and its pose.")
    poses = [np.asarray(pose, dtype=np.float64) for pose in lists[-1]]
    for index, pose in enumerate(poses):
        if not is_rigid(pose):
            raise InputError(f"Pose {index} is not a rigid (4, 4) transform; check the extrinsics or the odometry it comes from.")
    return np.stack(poses)


@lru_cache(maxsize=32)
def _uploaded(grid: PatchGrid, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of the valid patches, their rays in float32 and in float64: kept, since an upload waits for a GPU."""
    valid = torch.from_numpy(np.flatnonzero(grid.valid)).to(device)
    rays = torch.from_numpy(np.array(grid.rays)).to(device)[valid]
    return valid, rays.float(), rays


def _on_grid(values: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """(K, ...) values of rays laid out as the image's patches, NaN where no ray is."""
    field = np.full((grid.rows * grid.columns, *values.shape[1:]), np.nan)
    field[grid.valid] = values
    return field.reshape(grid.rows, grid.columns, *values.shape[1:])
