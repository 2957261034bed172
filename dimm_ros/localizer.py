"""``Localizer``: a map, its encoder and a solver; ``localize(image, camera)`` reads like the paper."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from dimm_ros.config import AcceptanceConfig, SolverConfig
from dimm_ros.encoder.dinov2 import Encoder, Tokens, choose_device
from dimm_ros.encoder.patches import PatchGrid, fit, normalise, patch_grid
from dimm_ros.errors import WeightsError
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.model import Rays
from dimm_ros.scene_map import SceneMap
from dimm_ros.solver import PoseSolution, solve_pose


@dataclass(frozen=True)
class Estimate:
    """What one image says about the camera's pose.

    Attributes:
        world_from_camera: (4, 4), map frame, metres, optical axes.
        covariance: (6, 6), order x, y, z, rx, ry, rz about fixed map axes (geometry_msgs/PoseWithCovariance).
        accepted: whether the acceptance rules hold; a rejected estimate still carries its pose for inspection.
        reason: one sentence when rejected, empty when accepted.
        inliers: rays that agree with both rotation and centre.
        rays: rays the solver saw.
        stage_ms: time of each stage in milliseconds: prepare, encode, head, solve, total.
        cls: (W,) float32 CLS token of the image.
        angle_residual_deg: (rows, columns) angle between predicted and solved direction of each patch, NaN where masked.
        centre_residual: (rows, columns) distance of the solved centre from each predicted ray, metres, NaN where masked.
        world_rays: (rows, columns, 6) predicted ray of each patch: unit direction, moment about the map frame's origin (metres).
    """

    world_from_camera: np.ndarray
    covariance: np.ndarray
    accepted: bool
    reason: str
    inliers: int
    rays: int
    stage_ms: dict[str, float] = field(default_factory=dict)
    cls: np.ndarray | None = None
    angle_residual_deg: np.ndarray | None = None
    centre_residual: np.ndarray | None = None
    world_rays: np.ndarray | None = None

    @property
    def inlier_ratio(self) -> float:
        """Share of rays that agree with the pose, 0 to 1."""
        return self.inliers / self.rays if self.rays else 0.0


class Localizer:
    """Localizes images in one map.

    Attributes:
        map: the scene map.
        encoder: the encoder that the map was trained with.
        solver: thresholds of the two RANSACs.
        acceptance: when an estimate is good enough.
    """

    def __init__(
        self, scene_map: SceneMap, encoder: Encoder, solver: SolverConfig | None = None, acceptance: AcceptanceConfig | None = None,
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
    ) -> Localizer:
        """Load a map and the encoder it names.

        Raises:
            MapError: the file is missing or damaged.
            WeightsError: the encoder's weights are nowhere to be found, or are not those the map was trained with.
        """
        target = choose_device(device)
        scene_map = SceneMap.load(map_path, target)
        header = scene_map.header
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

    def warm_up(self, camera: Camera) -> None:
        """Run once on a grey image, so that the first real image is not the slow one."""
        self.localize(np.full((camera.height, camera.width, 3), 127, dtype=np.uint8), camera)

    def localize(self, image: np.ndarray, camera: Camera) -> Estimate:
        """Pose of one (H, W, 3) uint8 RGB image.

        Raises:
            InputError: the image's size is not the camera's, or it is not RGB uint8.
        """
        clock = _Clock(self.encoder.device)
        with clock("prepare"):
            grid = patch_grid(camera, self.encoder.config.input_size)
            pixels = torch.from_numpy(normalise(fit(image, camera, grid)))
        with clock("encode"):
            tokens = self.encoder.encode(pixels[None])
        with clock("head"):
            rays = self.predict_rays(tokens, grid)
        with clock("solve"):
            solution = self.solve(rays, grid)
        return self._judge(solution, grid, tokens, rays, clock.total())

    @torch.inference_mode()
    def predict_rays(self, tokens: Tokens, grid: PatchGrid) -> Rays:
        """World rays of one image's patches, in the map's normalised frame."""
        camera_rays = torch.from_numpy(np.array(grid.rays, dtype=np.float32)).to(self.encoder.device)
        return self.map.head(tokens.patches[0].float(), tokens.context.float(), camera_rays)

    @torch.inference_mode()
    def solve(self, rays: Rays, grid: PatchGrid) -> PoseSolution:
        """Pose from rays: metres, about the map's origin (the solver's noise grows with the distance from it)."""
        header = self.map.header
        device = rays.directions.device
        valid = torch.from_numpy(np.flatnonzero(grid.valid)).to(device)
        camera_rays = torch.from_numpy(np.array(grid.rays)).to(device)[valid]
        confident = rays.direction_scale is not None
        return solve_pose(
            camera_rays, rays.directions[valid], rays.moments[valid] * header.radius,
            direction_sigma=rays.direction_scale[valid] if confident else None,
            moment_sigma=rays.moment_scale[valid] * header.radius if confident else None,
            config=self.solver,
        )

    def _judge(self, solution: PoseSolution, grid: PatchGrid, tokens: Tokens, predicted: Rays, stage_ms: dict[str, float]) -> Estimate:
        """The solution in the map frame with calibrated covariance, accepted or not."""
        header = self.map.header
        world_from_camera = solution.world_from_camera.cpu().numpy().copy()
        world_from_camera[:3, 3] += header.origin
        factor = np.repeat([header.calibration.position_factor, header.calibration.rotation_factor], 3)
        covariance = solution.covariance.cpu().numpy() * np.outer(factor, factor)
        inliers = int((solution.rotation_inliers & solution.centre_inliers).sum())
        rays = int(grid.valid.sum())
        reason = solution.reason if not solution.ok else self._why_rejected(inliers / max(rays, 1), covariance)
        return Estimate(
            world_from_camera, covariance, not reason, reason, inliers, rays, stage_ms, tokens.cls[0].float().cpu().numpy(),
            np.degrees(_on_grid(solution.angle_residual, grid)), _on_grid(solution.centre_residual, grid), self._in_map(predicted, grid),
        )

    def _in_map(self, predicted: Rays, grid: PatchGrid) -> np.ndarray:
        """Predicted rays in metres about the map frame's origin."""
        directions, moments = (part.float().cpu().numpy().astype(np.float64) for part in (predicted.directions, predicted.moments))
        moments = moments * self.map.header.radius + np.cross(self.map.header.origin, directions)
        return np.concatenate([directions, moments], axis=-1).reshape(grid.rows, grid.columns, 6)

    def _why_rejected(self, inlier_ratio: float, covariance: np.ndarray) -> str:
        rules = self.acceptance
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


class _Clock:
    """Times named stages in milliseconds; waits for CUDA so that a stage's time is its own."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stages = device, {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._stages[stage] = (time.perf_counter() - start) * 1e3

    def total(self) -> dict[str, float]:
        return self._stages | {"total": sum(self._stages.values())}


def _on_grid(values: torch.Tensor, grid: PatchGrid) -> np.ndarray:
    """Per-ray values laid out as the image's patches, NaN where no ray is."""
    field = np.full(grid.rows * grid.columns, np.nan)
    field[grid.valid] = values.cpu().numpy()
    return field.reshape(grid.rows, grid.columns)
