"""``Localizer``: a map, its encoder and a solver; ``localize(image, camera)`` reads like the paper."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dimm_ros.config import EVERY_RAY, LIKELY_DISTANCE_M, AcceptanceConfig, SolverConfig
from dimm_ros.encoder.dinov2 import Encoder, choose_device
from dimm_ros.encoder.patches import PatchGrid, check_image, patch_grid, subsampled
from dimm_ros.errors import InputError, WeightsError
from dimm_ros.estimate import Estimate, Observation
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import is_rigid
from dimm_ros.head.model import Rays
from dimm_ros.landmarks.follow import Followed, follow
from dimm_ros.landmarks.keypoints import (
    Detector,
    KeypointLevels,
    Keypoints,
    detector_of,
    find_keypoints,
    keypoint_levels,
    keypoints_of,
    reduced_grey,
)
from dimm_ros.landmarks.locate import LandmarkResult, locate
from dimm_ros.runtime.clock import Clock
from dimm_ros.runtime.network import Network, Prepared, observe, on_device, prepare
from dimm_ros.runtime.onnx_network import OnnxNetwork, Provider, network_path
from dimm_ros.runtime.torch_network import TorchNetwork
from dimm_ros.scene_map import SceneMap
from dimm_ros.solver import PoseSolution, refine_focal, solve_rig
from dimm_ros.solver.landmarks import PosePrior
from dimm_ros.solver.window import calibrated_covariance, effective_images, redundancy
from dimm_ros.uncalibrated import encode_image, find_focal, observe_as, square_camera

#: Of a window's landmarks, the least share of an usual image's that the newest must show, or it was taken elsewhere.
_LEAST_SHARE = 0.25
#: Novelty from which a view is so unlike the mapped ones that its keypoints are matched with landmarks everywhere.
_UNLIKE = 0.15
#: Agreeing landmarks of the best image from which the coarse level's keypoints are enough.
_ENOUGH = 150
#: Tracking looks at a smaller image for fewer keypoints: a good prediction needs less.
_TRACKED_LONGEST, _TRACKED_KEYPOINTS = 320, 800
_UNSEEN = "Too few landmarks are where the prediction has them: it is wrong, or they are hidden; localize anew."
#: Rounds in which landmarks refine a focal length, and the change (a logarithm) that ends them.
_FOCAL_ROUNDS, _FOCAL_SETTLED = 8, 2e-3
_FAMILIAR = 0.1  # novelty of views close to mapped ones
#: The pose of a camera that is the base itself.
_AT_BASE = np.eye(4)[None]

logger = logging.getLogger(__name__)


class Localizer:
    """Localizes images in one map.

    Attributes:
        map: the scene map.
        encoder: the encoder that the map was trained with, or the network exported from the map.
        network: encoder and the map's head together.
        solver: thresholds of the two RANSACs.
        acceptance: when an estimate is good enough.
        doubt: why the map's poses are hardly in metres, which every rejection ends with; empty when they may well be.
    """

    def __init__(
        self,
        scene_map: SceneMap,
        encoder: Encoder | OnnxNetwork,
        solver: SolverConfig | None = None,
        acceptance: AcceptanceConfig | None = None,
    ) -> None:
        header = scene_map.header
        if encoder.weights.sha256 != header.encoder_sha256 or encoder.config != header.encoder:
            raise WeightsError(
                f"Map '{header.name}' was made with {header.encoder.name} (SHA-256 {header.encoder_sha256[:12]}..., "
                "input size "
                f"{header.encoder.input_size}), not with this encoder; open it with Localizer.open."
            )
        self.map, self.encoder = scene_map, encoder
        self.network: Network = encoder if isinstance(encoder, Network) else TorchNetwork(encoder, scene_map.head)
        self.solver, self.acceptance = solver or SolverConfig(), acceptance or AcceptanceConfig()
        self.doubt = _doubt(scene_map, self.acceptance)

    @classmethod
    def open(
        cls,
        map_path: str | Path,
        *,
        device: str = "auto",
        weights: str | Path | None = None,
        solver: SolverConfig | None = None,
        acceptance: AcceptanceConfig | None = None,
        backend: Literal["torch", "onnx"] = "torch",
        onnx_provider: Provider = "auto",
    ) -> Localizer:
        """Load a map and the encoder it names, or (``backend`` onnx) the network that 'dimm export' wrote beside the
        map.

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
            return cls(scene_map, network, solver, acceptance).with_warning()
        if backend != "torch":
            raise InputError(f"The back end '{backend}' is not known; choose torch or onnx.")
        encoder = Encoder.open(header.encoder, device=device, weights=weights, sha256=header.encoder_sha256)
        return cls(scene_map, encoder, solver, acceptance).with_warning()

    def with_warning(self) -> Localizer:
        """The same localizer, after a warning in the log where its map's scale is doubtful."""
        if self.doubt:
            logger.warning("Map '%s': %s", self.name, self.doubt)
        return self

    @property
    def frame_id(self) -> str:
        """Name of the map's world frame."""
        return self.map.header.frame_id

    @property
    def name(self) -> str:
        """The map's name."""
        return self.map.header.name

    def localize(self, image: np.ndarray, camera: Camera) -> Estimate:
        """Pose of one (H, W, 3) uint8 RGB image.

        Raises:
            InputError: the image's size is not the camera's, or it is not RGB uint8.
        """
        images = self.preprocess([image], [camera])
        observations = self.predict(images)
        return self.estimate(observations, _AT_BASE)

    def track(
        self,
        image: np.ndarray,
        camera: Camera,
        predicted_pose: np.ndarray,
        covariance: np.ndarray,
        before: Estimate | None = None,
    ) -> Estimate:
        """Pose of one image near a predicted one, from landmarks alone: no encoder, hence at the camera's rate on a
        CPU.

        It knows nothing of what the image looks like as a whole, so it cannot notice that the robot is elsewhere but by
        finding no landmarks there; run ``localize`` now and then, and at once when this rejects.

        Args:
            image: (H, W, 3) uint8 RGB.
            camera: of the image.
            predicted_pose: (4, 4) world_from_camera, map frame, metres: of odometry, or of constant velocity.
            covariance: (6, 6) of the prediction, order x, y, z, rx, ry, rz.
            before: of the same camera's image before, as this method gave it: its landmarks are followed into this
                image, in a fifth of the time that it takes to find them anew, which is done where too few can be.

        Raises:
            InputError: the image's size is not the camera's, it is not RGB uint8, the pose is not rigid, its covariance
                is none, or the map has no landmarks.
        """
        if not self.can_track:
            raise InputError(f"Map '{self.name}' has no landmarks to track; build it with --landmarks points or lines.")
        poses = _checked([image], [predicted_pose])
        covariance = np.asarray(covariance, dtype=np.float64)
        if covariance.shape != (6, 6) or not np.isfinite(covariance).all() or np.linalg.eigvalsh(covariance).min() <= 0:
            raise InputError(
                "The prediction's covariance is not a finite, positive definite (6, 6) matrix; give one that tells how "
                "unsure x, y, z, rx, ry and rz are, in square metres and radians."
            )
        clock = Clock(torch.device("cpu"))
        estimate = Estimate(
            world_from_camera=poses[0],
            covariance=covariance,
            accepted=False,
            reason=_UNSEEN,
            inliers=0,
            rays=0,
            basis="landmarks",
        )
        prior, seen, chain = self._prior(poses[0], covariance), None, 0
        with clock("keypoints"):
            check_image(image, camera)
            grey = reduced_grey(image, _TRACKED_LONGEST)
        with clock("landmarks"):
            if before is not None and before.followed is not None:
                seen, chain = (
                    follow(before.followed, grey, camera, self.map.landmarks, prior),
                    before.followed.chain + 1,
                )
        if seen is None:
            with clock("keypoints"):
                keypoints, chain = keypoints_of(grey, camera, self._detector, _TRACKED_KEYPOINTS), 0
            with clock("landmarks"):
                seen = locate([keypoints], _AT_BASE, self.map.landmarks, prior), keypoints
        found, keypoints = seen
        with clock("landmarks"):
            if found is not None and found.proven:
                estimate = self.accept(self._joined(estimate, found, [keypoints]))
                followed = Followed.of(grey, camera, keypoints, found, self.map.landmarks, chain)
                estimate = replace(estimate, followed=followed if estimate.accepted else None)
        return replace(estimate, stage_ms=clock.stages | {"total": sum(clock.stages.values())})

    def estimate(
        self, observations: Sequence[Observation], base_from_cameras: np.ndarray, newest: int | None = None
    ) -> Estimate:
        """The judged joint pose of observations: solve, calibrate, accept.

        Args:
            observations: at least one.
            base_from_cameras: (K, 4, 4) rigid pose of each observation's camera in the base, metres.
            newest: how many of the last observations the estimate has the times of; None for all.
        """
        clock = Clock(self.encoder.device)
        with clock("solve"):
            solution = self.solve(observations, base_from_cameras)
        estimate = self.calibrate(solution, observations, base_from_cameras)
        if self.can_track:
            with clock("landmarks"):
                estimate = self.join_landmarks(estimate, observations, base_from_cameras)
        timed = observations[-(newest or len(observations)) :]
        return replace(self.accept(estimate), stage_ms=_stages(timed, clock.stages))

    def preprocess(self, images: Sequence[np.ndarray], cameras: Sequence[Camera]) -> list[Prepared]:
        """Images as the network takes them, with camera rays of the sampled patches, and keypoints; raises as
        ``localize``.
        """
        size = self.encoder.config.input_size
        grids = [subsampled(patch_grid(camera, size), self.solver.rays) for camera in cameras]
        return [self._prepared(*each) for each in zip(images, cameras, grids, strict=True)]

    def _prepared(self, image: np.ndarray, camera: Camera, grid: PatchGrid) -> Prepared:
        prepared, info, clock = prepare(image, camera, grid), self.map.header.landmarks, Clock(torch.device("cpu"))
        if info is None:
            return prepared
        with clock("keypoints"):
            find = (image, camera, self._detector, info.longest, info.keypoints)
            # Lines give half as many equations: they need all keypoints.
            keypoints = KeypointLevels(find_keypoints(*find)) if info.kind == "lines" else keypoint_levels(*find)
        return replace(prepared, keypoints=keypoints, stage_ms=prepared.stage_ms | clock.stages)

    @cached_property
    def _detector(self) -> Detector:
        """The map's detector, made with the first image, and not at all for rays alone."""
        return detector_of(self.map.header.landmarks.detector)

    def predict(self, images: Sequence[Prepared]) -> list[Observation]:
        """World rays of the images' patches, in the map's normalised frame."""
        return observe(self.network, images)

    @torch.inference_mode()
    def solve(self, observations: Sequence[Observation], base_from_cameras: np.ndarray) -> PoseSolution:
        """Pose of the base from rays: metres, about the map's origin, since the solver's noise grows with the distance.

        Scales of the rays' errors count where all images' rays have them.
        """
        camera_rays = [on_device(each.grid, each.rays.directions.device)[2] for each in observations]
        parts = [each.rays.in_metres(self.map.header.radius) for each in observations]
        joint = {name: [part[name] for part in parts] for name in parts[0]}
        joint = {name: None if any(part is None for part in each) else each for name, each in joint.items()}
        return solve_rig(camera_rays, list(torch.from_numpy(base_from_cameras)), **joint, config=self.solver)

    def calibrate(
        self, solution: PoseSolution, observations: Sequence[Observation], base_from_cameras: np.ndarray
    ) -> Estimate:
        """The solution in the map frame, with the covariance that the map's calibration and the images' novelty say."""
        header, last = self.map.header, observations[-1]
        world_from_base = solution.world_from_camera.cpu().numpy().copy()
        world_from_base[:3, 3] += header.origin
        rays = np.array([each.grid.valid.sum() for each in observations])
        agreeing = (solution.rotation_inliers & solution.centre_inliers).cpu().numpy()
        inliers = np.array([part.sum() for part in np.split(agreeing, np.cumsum(rays)[:-1])])
        arm = world_from_base[:3, :3] @ (inliers @ base_from_cameras[:, :3, 3]) / max(inliers.sum(), 1)
        novelty = _median_novelty(observations)
        covariance = calibrated_covariance(
            solution.covariance.cpu().numpy(),
            arm,
            *header.calibration.sigmas(novelty),
            redundant=redundancy(base_from_cameras, inliers),
            images=effective_images(inliers),
            sampled_fraction=float(np.mean([each.grid.sampled_fraction for each in observations])),
        )
        of_last = slice(len(agreeing) - rays[-1], None)
        angle, distance = (part.cpu().numpy()[of_last] for part in (solution.angle_residual, solution.centre_residual))
        return Estimate(
            world_from_camera=world_from_base,
            covariance=covariance,
            accepted=solution.ok,
            reason=solution.reason,
            inliers=int(inliers.sum()),
            rays=int(rays.sum()),
            novelty=novelty,
            image_inlier_ratios=tuple((inliers / np.maximum(rays, 1)).tolist()),
            cls=last.cls.float().cpu().numpy(),
            angle_residual_deg=np.degrees(_on_grid(angle, last.grid)),
            centre_residual=_on_grid(distance, last.grid),
            world_rays=self._in_map(last.rays, last.grid),
            inlier_mask=_on_grid(agreeing[of_last], last.grid) == 1,
        )

    def join_landmarks(
        self, estimate: Estimate, observations: Sequence[Observation], base_from_cameras: np.ndarray
    ) -> Estimate:
        """The rays' calibrated estimate joined by what the map's landmarks say; the same where they say nothing.

        Of familiar views matching is guided by the rays' pose, with the coarse level's keypoints, and with the fine
        one's where too few of these agree. Of others, the fine level's are matched with the landmarks that most images
        showed, and the rays' pose joins what they say. Where the rays are not to be trusted, or nothing agrees with
        them, the pose rests on landmarks alone: they prove an image of this map that the rays call foreign.
        """
        levels = [each.keypoints for each in observations]
        if any(each is None for each in levels):
            return estimate
        rays = (
            self._prior(estimate.world_from_camera, estimate.covariance)
            if np.isfinite(estimate.covariance).all()
            else None
        )
        trusted = rays is not None and not self.accept(estimate).reason
        searches = [(None, "fine", True)]
        if trusted:
            searches.insert(0, (rays, "fine", False))
            if self.map.landmarks.kind == "points" and (estimate.novelty or 0.0) > _UNLIKE:
                searches.insert(0, (rays, "fine", True))
            elif not all(each.single for each in levels):
                searches.insert(0, (rays, "coarse", False))
        elif rays is not None and self.map.landmarks.kind == "lines":
            searches.append((rays, "fine", False))  # lines hardly fix a pose from nothing: even a doubtful start helps
        joined = None
        for start, level, everywhere in searches:
            if joined is not None and start is None:
                break
            keypoints = [getattr(each, level) for each in levels]
            found = locate(keypoints, base_from_cameras, self.map.landmarks, start, everywhere=everywhere)
            if found is None or not found.proven:
                continue
            if joined is None or found.pose.inliers.sum() > joined.landmarks:
                joined = self._joined(estimate, found, keypoints)
            if level == "fine" or max(joined.image_landmarks) >= _ENOUGH:
                break
        return joined or estimate

    def _prior(self, world_from_base: np.ndarray, covariance: np.ndarray) -> PosePrior:
        """A pose of the map frame about the map's origin, where landmarks are."""
        pose = world_from_base.copy()
        pose[:3, 3] -= self.map.header.origin
        return PosePrior.of(pose, covariance)

    def _joined(self, estimate: Estimate, found: LandmarkResult, keypoints: Sequence[Keypoints]) -> Estimate:
        """The estimate with the landmarks' pose, as the recording would have it: their own scatter, the errors they
        share, and the prior's information.
        """
        pose, matched = found.pose, found.matched
        covariance = self.map.header.landmarks.calibration.covariance(pose, found.unknown, found.apart)
        world_from_base = found.world_from_rig.copy()
        world_from_base[:3, 3] += self.map.header.origin
        agreeing = np.bincount(matched.camera[pose.inliers], minlength=len(keypoints))
        of_last = matched.keypoints[pose.inliers & (matched.camera == len(keypoints) - 1)]
        return replace(
            estimate,
            world_from_camera=world_from_base,
            covariance=(covariance + covariance.T) / 2,
            accepted=True,
            reason="",
            basis="landmarks" if pose.prior is None or estimate.basis == "landmarks" else "both",
            landmarks=int(pose.inliers.sum()),
            landmark_matches=len(matched.matches),
            landmark_proof=pose.proof,
            image_landmarks=tuple(agreeing.tolist()),
            landmark_pixels=keypoints[-1].pixels[of_last],
        )

    def accept(self, estimate: Estimate) -> Estimate:
        """The estimate as the acceptance rules judge it; one that has no pose keeps the reason for that."""
        reason = estimate.reason
        if not reason and estimate.basis == "rays":
            reason = self._foreign(estimate.inlier_ratio, estimate.novelty)
        reason = reason or self._unsure(estimate.covariance)
        if reason and self.doubt not in reason:
            reason += f" {self.doubt}"
        return replace(estimate, accepted=not reason, reason=reason)

    def localize_rig(
        self, images: Sequence[np.ndarray], cameras: Sequence[Camera], base_from_cameras: Sequence[np.ndarray]
    ) -> Estimate:
        """Pose of a base, world_from_base, from images that its cameras took at one instant.

        Args:
            images: (H, W, 3) uint8 RGB each.
            cameras: of each image.
            base_from_cameras: (4, 4) pose of each camera (optical axes) in the base frame, metres.

        Raises:
            InputError: as ``localize``; no image, lists of different lengths, or a pose that is not rigid.
        """
        poses = _checked(images, cameras, base_from_cameras)
        return self.estimate(self.observe_all(images, cameras), poses)

    def localize_window(
        self, images: Sequence[np.ndarray], cameras: Sequence[Camera], relative_poses: Sequence[np.ndarray]
    ) -> Estimate:
        """Pose of the newest camera from the frames of a short odometry window; see ``solve_window``, which encodes
        nothing again.

        Args:
            images: (H, W, 3) uint8 RGB each, oldest first.
            cameras: of each image.
            relative_poses: newest_from_camera of each image, (4, 4), metres; the last is the identity.

        Raises:
            InputError: as ``localize_rig``; the last pose is not the identity.
        """
        poses = _checked(images, cameras, relative_poses)
        if not np.allclose(poses[-1], np.eye(4), atol=1e-6):
            raise InputError(
                "The last relative pose must be the identity: poses are those of each camera in the newest camera's "
                "frame."
            )
        observations = self.observe_all(images, cameras)
        estimate = self.solve_window(observations, relative_poses)
        joint = {name: ms for name, ms in estimate.stage_ms.items() if name in ("solve", "landmarks")}
        return replace(estimate, stage_ms=_stages(observations, joint))

    def solve_window(
        self, observations: Sequence[Observation], newest_from_observed: Sequence[np.ndarray], newest: int = 1
    ) -> Estimate:
        """Joint pose of images whose relative poses are known: a window of frames, of one camera or of a rig.

        If the newest images contradict the joint pose, or that is rejected, the earlier ones are left out: odometry
        does not know that the robot was carried away, and neither may its last images speak for an image that was taken
        elsewhere, or of nothing.

        Args:
            observations: oldest first.
            newest_from_observed: (4, 4) pose of each observation's camera (at its own time) in the newest base frame,
                or in the newest camera's; the estimate is the pose of that frame. Odometry's error over the window is
                not in the covariance.
            newest: how many of the last observations belong to the newest instant.

        Raises:
            InputError: no observation, lists of different lengths, or a pose that is not rigid.
        """
        poses = _checked(observations, newest_from_observed)
        if not 1 <= newest <= len(observations):
            raise InputError(
                f"A window of {len(observations)} images cannot have {newest} newest ones; give 1 to "
                f"{len(observations)}."
            )
        estimate = self.estimate(observations, poses, newest)
        if newest == len(observations):
            return estimate
        if estimate.basis == "rays":
            agreeing = float(np.mean(estimate.image_inlier_ratios[-newest:]))
            contradicted = bool(self._foreign(agreeing, _median_novelty(observations[-newest:])))
        else:
            contradicted = max(estimate.image_landmarks[-newest:]) < _LEAST_SHARE * np.median(estimate.image_landmarks)
        if estimate.accepted and not contradicted:
            return estimate
        return self.estimate(observations[-newest:], poses[-newest:])

    def localize_unknown_focal(self, image: np.ndarray) -> tuple[Estimate, Camera]:
        """Pose of one (H, W, 3) uint8 RGB image of an uncalibrated camera, and that camera; ``uncalibrated`` says what
        is assumed.

        Rays tell the focal length of one image to a few per cent; ``uncalibrated.estimate_camera`` of several images is
        better. Landmarks, where the map has them as points, refine it with the pose.

        Raises:
            InputError: the image is not RGB uint8, or no focal length explains it.
        """
        clock, info, keypoints = Clock(self.encoder.device), self.map.header.landmarks, None
        with clock("encode"):
            tokens = encode_image(self.encoder, image)
        height, width = image.shape[:2]
        camera = square_camera(width, height, find_focal(self.map, tokens, image.shape))
        if info is not None:
            keypoints = find_keypoints(image, camera, self._detector, info.longest, info.keypoints)
        for rounds_left in reversed(range(_FOCAL_ROUNDS)):
            observation = observe_as(self.map, tokens, camera, self.solver.rays, clock.stages["encode"])
            if keypoints is not None:
                observation = replace(observation, keypoints=KeypointLevels(keypoints))
            estimate = self.estimate([observation], _AT_BASE)
            focal = self._focal_of_landmarks(keypoints, estimate, camera)
            if not rounds_left or abs(np.log(focal / camera.fx)) < _FOCAL_SETTLED:
                break
            sigma, camera = keypoints.sigma * camera.fx / focal, square_camera(width, height, focal)
            bearings = camera.bearings(keypoints.pixels.astype(float))[0]
            keypoints = replace(keypoints, bearings=bearings, sigma=sigma)
        return estimate, camera

    def _focal_of_landmarks(self, keypoints: Keypoints | None, estimate: Estimate, camera: Camera) -> float:
        """The pinhole camera's focal length as landmarks about an estimate refine it, pixels; unchanged where they say
        nothing.
        """
        if keypoints is None or estimate.basis == "rays" or self.map.landmarks.kind != "points":
            return camera.fx
        found = locate(
            [keypoints], _AT_BASE, self.map.landmarks, self._prior(estimate.world_from_camera, estimate.covariance)
        )
        if found is None or not found.proven:
            return camera.fx
        agreeing = found.pose.inliers
        pixels = keypoints.pixels[found.matched.keypoints[agreeing]] - (camera.cx, camera.cy)
        return refine_focal(
            pixels, found.matched.matches.places[agreeing], found.pose.rotation, found.pose.centre, camera.fx
        )

    def observe(self, image: np.ndarray, camera: Camera) -> Observation:
        """Rays of one (H, W, 3) uint8 RGB image; raises as ``localize``."""
        return self.observe_all([image], [camera])[0]

    def observe_all(self, images: Sequence[np.ndarray], cameras: Sequence[Camera]) -> list[Observation]:
        """Rays of images; those of one size are encoded as one batch, and share its time evenly.

        Raises:
            InputError: as ``localize``; lists of different lengths.
        """
        if len(images) != len(cameras):
            raise InputError(
                f"{len(images)} images but {len(cameras)} cameras were given; each image needs its camera."
            )
        return self.predict(self.preprocess(images, cameras))

    def sampling_every_patch(self) -> Localizer:
        """The same, but for rays that are to be seen: no patch is left out."""
        return Localizer(self.map, self.encoder, self.solver.changed(rays=EVERY_RAY), self.acceptance)

    @property
    def can_track(self) -> bool:
        """Whether the map has landmarks to ``track``."""
        return self.map.landmarks is not None

    def warm_up(self, camera: Camera) -> None:
        """Run once on a grey image, so that the first real image is not the slow one."""
        self.localize(np.full((camera.height, camera.width, 3), 127, dtype=np.uint8), camera)
        if self.can_track and self.map.landmarks.warp is not None:  # a grey image shows no landmark that would need it
            self.map.landmarks.warp.recorded(np.eye(4))

    def _in_map(self, predicted: Rays, grid: PatchGrid) -> np.ndarray:
        """Predicted rays in metres about the map frame's origin."""
        directions, moments = (
            part.float().cpu().numpy().astype(np.float64) for part in (predicted.directions, predicted.moments)
        )
        moments = moments * self.map.header.radius + np.cross(self.map.header.origin, directions)
        return _on_grid(np.concatenate([directions, moments], axis=-1), grid)

    def _foreign(self, inlier_ratio: float, novelty: float | None) -> str:
        """Why rays say that an image is not of this map; empty when they do not."""
        rules, most = self.acceptance, self.map.header.calibration.max_novelty
        if novelty is not None and most is not None and novelty > most * rules.novelty_scale:
            limit = most * rules.novelty_scale
            return (
                f"The image is unlike every mapped view (novelty {novelty:.2f}, at most {limit:.2f}): it is probably "
                f"not of this map."
            )
        if inlier_ratio < rules.min_inlier_ratio:
            return (
                f"Only {inlier_ratio:.0%} of the rays agree (at least {rules.min_inlier_ratio:.0%} must): the view is "
                f"probably not of this map."
            )
        return ""

    def _unsure(self, covariance: np.ndarray) -> str:
        """Why a pose of this covariance is of no use; empty when it is."""
        rules = self.acceptance
        if not np.isfinite(covariance).all():
            return "The pose's covariance is not finite: the rays do not fix it."
        sigma = np.sqrt(np.maximum(np.diag(covariance), 0))
        position, rotation = sigma[:3].max(), np.degrees(sigma[3:].max())
        if position > rules.max_position_sigma:
            return (
                f"The position is uncertain by {position:.2f} m (at most {rules.max_position_sigma:g} m is accepted)."
            )
        if rotation > rules.max_rotation_sigma_deg:
            return (
                f"The rotation is uncertain by {rotation:.1f} deg (at most {rules.max_rotation_sigma_deg:g} deg is "
                f"accepted)."
            )
        return ""


def _doubt(scene_map: SceneMap, rules: AcceptanceConfig) -> str:
    """Signs that a map's poses are in another unit: what it shows is too near or too far, or it is unsure near its own
    views.
    """
    seen = np.nan if scene_map.landmarks is None else scene_map.landmarks.seen_distance
    if seen <= LIKELY_DISTANCE_M[0] or seen >= LIKELY_DISTANCE_M[1]:
        return (
            f"What this map shows is {float(f'{seen:.2g}'):g} m away (median), were its poses in metres: make a bag in "
            "metres with "
            "'dimm convert --scale' and map that."
        )
    sigma = scene_map.header.calibration.sigmas(_FAMILIAR)[0]
    if not rules.max_position_sigma < sigma < np.inf:
        return ""
    return (
        f"This map tells even views near its own to {sigma:.2g} m only: "
        "see what 'dimm doctor' says of its recording's scale and coverage."
    )


def _median_novelty(observations: Sequence[Observation]) -> float | None:
    """Median novelty of the images, None for a map that knows none."""
    known = [float(each.rays.novelty[0]) for each in observations if each.rays.novelty is not None]
    return float(np.median(known)) if known else None


def _stages(observations: Sequence[Observation], joint: dict[str, float]) -> dict[str, float]:
    """Summed times of the observations' stages, those of the joint ones (solve, landmarks), and their total."""
    stages = {stage: sum(each.stage_ms[stage] for each in observations) for stage in observations[0].stage_ms} | joint
    return stages | {"total": sum(stages.values())}


def _checked(*lists: Sequence) -> np.ndarray:
    """The last list's poses as (K, 4, 4), when all lists have one length above zero and the poses are rigid."""
    counts = {len(each) for each in lists}
    if counts == {0}:
        raise InputError("No image was given; a pose needs at least one.")
    if len(counts) > 1:
        raise InputError(
            f"Lists of {', '.join(str(len(each)) for each in lists)} entries were given; each image needs its camera "
            "and its pose."
        )
    poses = [np.asarray(pose, dtype=np.float64) for pose in lists[-1]]
    for index, pose in enumerate(poses):
        if not is_rigid(pose):
            raise InputError(
                f"Pose {index} is not a rigid (4, 4) transform; check the extrinsics or the odometry it comes from."
            )
    return np.stack(poses)


def _on_grid(values: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """(K, ...) values of rays laid out as the image's patches, NaN where no ray is."""
    field = np.full((grid.rows * grid.columns, *values.shape[1:]), np.nan)
    field[grid.valid] = values
    return field.reshape(grid.rows, grid.columns, *values.shape[1:])
