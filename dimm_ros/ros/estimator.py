"""From what one or several cameras saw, now and a moment ago, to one pose of the robot."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dimm_ros.data.image_encoding import check_stored_size
from dimm_ros.errors import InputError
from dimm_ros.geometry import poses
from dimm_ros.ros.cameras import ImageWithInfo
from dimm_ros.ros.messages import to_rgb, transport_covariance
from dimm_ros.ros.odometry import Odometry
from dimm_ros.ros.tf import Transforms
from dimm_ros.tracking.tracker import Tracker
from dimm_ros.uncalibrated import FocalFinder

if TYPE_CHECKING:
    from dimm_ros.atlas import Atlas
    from dimm_ros.geometry.camera import Camera
    from dimm_ros.localizer import Estimate, Localizer, Observation
    from dimm_ros.ros.parameters import NodeConfig

#: Older frames are left out of a window, seconds: odometry has drifted since.
_WINDOW_S = 5.0
#: Landmarks are followed into the next image within so many seconds; later it shows things in another place and size.
_FOLLOWED_S = 0.12


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image with its camera (None before its focal length is found); ``frame`` is the camera's optical
    frame.
    """

    image: np.ndarray
    camera: Camera | None
    frame: str
    stamp_ns: int


@dataclass(frozen=True)
class LocalizationResult:
    """Result of localizing the images of one time.

    Attributes:
        localizer: of the map that they show.
        estimate: of the body, or of the camera where there is one image.
        seen: the image that the estimate's residuals belong to.
        base_from_camera: (4, 4) where the body's pose was solved for; None where the camera's was.
        decode_ms: time that the messages took to decode.
        left_out: sentences on images that could not be used.
        tracked: whether landmarks were followed from a predicted pose, without the encoder.
    """

    localizer: Localizer
    estimate: Estimate
    seen: DecodedImage
    base_from_camera: np.ndarray | None
    decode_ms: float
    left_out: tuple[str, ...] = ()
    tracked: bool = False

    @property
    def shown(self) -> Estimate:
        """The estimate with the pose of the camera that took the image."""
        if self.base_from_camera is None:
            return self.estimate
        return replace(self.estimate, world_from_camera=self.estimate.world_from_camera @ self.base_from_camera)

    def of_body(self, camera_from_body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(4, 4) map_from_body and its (6, 6) covariance; the extrinsics count where the camera's pose was solved
        for.
        """
        estimate = self.estimate
        if self.base_from_camera is not None:
            return estimate.world_from_camera, estimate.covariance
        covariance = transport_covariance(estimate.covariance, estimate.world_from_camera, camera_from_body)
        return estimate.world_from_camera @ camera_from_body, covariance


@dataclass(frozen=True)
class _Moment:
    """What the cameras saw a moment ago."""

    stamp_ns: int
    odom_from_body: np.ndarray
    observations: tuple[Observation, ...]
    base_from_cameras: tuple[np.ndarray, ...]


class Estimator:
    """Solves for the pose of one image, of a rig's images, or of a window of them; for one thread.

    Args:
        config: gives the parameters in force.
        atlas: gives the maps.
        transforms: TF, for the cameras' extrinsics.
    """

    def __init__(self, config: Callable[[], NodeConfig], atlas: Callable[[], Atlas], transforms: Transforms) -> None:
        self._config, self._atlas, self._transforms = config, atlas, transforms
        self._windows: dict[str, deque[_Moment]] = {}
        self._focal, self._tracker, self._tracked_map = FocalFinder(), Tracker(), ""
        self._tracked: tuple[str, int, Estimate] | None = None  # camera, stamp and answer of the image tracked last

    def forget(self) -> None:
        """Start anew: time, the robot, the camera or the map has changed."""
        self.forget_windows()
        self._focal = FocalFinder()

    def forget_windows(self) -> None:
        """Drop earlier images and poses: the robot may be elsewhere."""
        self._windows.clear()
        self.doubt()

    def believe(
        self,
        answer: LocalizationResult,
        map_from_body: np.ndarray,
        covariance: np.ndarray,
        odom_from_body: np.ndarray | None,
    ) -> None:
        """A pose was published: the next images are tracked from it."""
        if self._tracked_map != answer.localizer.name:  # poses of two maps are no velocity
            self._tracked_map = answer.localizer.name
            self.doubt()
        self._tracker.believe(answer.seen.stamp_ns, map_from_body, covariance, odom_from_body, full=not answer.tracked)

    def doubt(self) -> None:
        """A pose was rejected: the next image is localized in full."""
        self._tracker.forget()
        self._tracked = None

    def solve(self, images: Sequence[ImageWithInfo], odometry: Odometry, *, search: bool) -> LocalizationResult:
        """The pose from images of one time.

        Args:
            images: the latest last.
            odometry: of the body.
            search: ask all maps.

        Raises:
            InputError: no image can be used.
            TransformError: a rig's camera is not linked to the base in TF.
        """
        config, atlas = self._config(), self._atlas()
        started = time.perf_counter()
        seen, left_out = self._decode(images)
        decode_ms = (time.perf_counter() - started) * 1e3
        last = seen[-1]
        if config.focal == "unknown":
            found = self._focal.ask(last.image, last.stamp_ns, lambda estimate: atlas.localize(estimate, search=search))
            if found is not None:
                localizer, estimate = found
                return LocalizationResult(
                    localizer=localizer, estimate=estimate, seen=last, base_from_camera=None, decode_ms=decode_ms
                )
            last = replace(last, camera=self._focal.camera)
            seen = [last]
        before, self._tracked = self._tracked, None
        tracked = self._track(seen, odometry, decode_ms, before)
        if tracked is not None:
            return tracked
        if len(images) == 1 and config.window == 1:
            localizer, estimate = atlas.localize(lambda one: one.localize(last.image, last.camera), search=search)
            return LocalizationResult(
                localizer=localizer, estimate=estimate, seen=last, base_from_camera=None, decode_ms=decode_ms
            )

        extrinsics = tuple(self._base_from_camera(one, odometry, last.stamp_ns) for one in seen)
        moments: dict[str, _Moment] = {}

        def solve_window(localizer: Localizer) -> Estimate:
            observations = tuple(localizer.observe_all([one.image for one in seen], [one.camera for one in seen]))
            odom_from_body = odometry.at(last.stamp_ns, config.tf_timeout)
            earlier: list[Observation] = []
            relative: list[np.ndarray] = []
            if odom_from_body is not None:
                moments[localizer.name] = _Moment(last.stamp_ns, odom_from_body, observations, extrinsics)
                for moment in self._windows.get(localizer.name, ()):
                    if moment.stamp_ns < last.stamp_ns <= moment.stamp_ns + _WINDOW_S * 1e9:
                        newest_from_then = poses.invert(odom_from_body) @ moment.odom_from_body
                        earlier += moment.observations
                        relative += [
                            newest_from_then @ base_from_camera for base_from_camera in moment.base_from_cameras
                        ]
            return localizer.solve_window([*earlier, *observations], [*relative, *extrinsics], newest=len(observations))

        localizer, estimate = atlas.localize(solve_window, search=search)
        if estimate.accepted and localizer.name in moments:
            window = self._windows.setdefault(localizer.name, deque())
            window.append(moments[localizer.name])
            while len(window) >= config.window:  # the next image is one of the window
                window.popleft()
        return LocalizationResult(
            localizer=localizer,
            estimate=estimate,
            seen=last,
            base_from_camera=extrinsics[-1],
            decode_ms=decode_ms,
            left_out=tuple(left_out),
        )

    def _track(
        self,
        seen: Sequence[DecodedImage],
        odometry: Odometry,
        decode_ms: float,
        before: tuple[str, int, Estimate] | None,
    ) -> LocalizationResult | None:
        """The pose from landmarks about where it should be; None when a full localization is due, or tracking is in
        doubt.
        """
        config, localizer, last = self._config(), self._atlas().current, seen[-1]
        if (
            self._tracked_map != localizer.name
            or len(seen) > 1
            or not localizer.can_track
            or self._tracker.due(last.stamp_ns, config.track)
        ):
            return None
        predicted = self._tracker.predict(last.stamp_ns, odometry.at(last.stamp_ns, config.tf_timeout), config.gate)
        if predicted is None:
            return None
        body_from_camera = self._base_from_camera(last, odometry, last.stamp_ns)
        covariance = transport_covariance(predicted.covariance, predicted.map_from_body, body_from_camera)
        if before is not None and (before[0] != last.frame or not 0 < last.stamp_ns - before[1] <= _FOLLOWED_S * 1e9):
            before = None
        estimate = localizer.track(
            last.image, last.camera, predicted.map_from_body @ body_from_camera, covariance, before and before[2]
        )
        if not estimate.accepted:
            return None
        self._tracked = (last.frame, last.stamp_ns, estimate)
        return LocalizationResult(
            localizer=localizer, estimate=estimate, seen=last, base_from_camera=None, decode_ms=decode_ms, tracked=True
        )

    def _decode(self, images: Sequence[ImageWithInfo]) -> tuple[list[DecodedImage], list[str]]:
        """The images that can be used, and sentences on the others."""
        seen, problems = [], []
        for stamped in images:
            try:
                if stamped.camera is not None and hasattr(stamped.message, "format"):
                    check_stored_size(stamped.message.data, stamped.camera)
                if stamped.camera is None and self._config().focal == "known":
                    raise InputError(stamped.error)
                frame = self._config().camera_frame or stamped.frame
                image, camera = to_rgb(stamped.message), stamped.camera
                if len(images) > 1 and image.shape[:2] != (camera.height, camera.width):
                    raise InputError(
                        f"The image is {image.shape[1]}x{image.shape[0]}, camera_info says "
                        f"{camera.width}x{camera.height}."
                    )
                seen.append(DecodedImage(image, camera, frame, stamped.stamp_ns))
            except InputError as error:
                problems.append(f"Camera '{stamped.name}' is left out: {error}" if len(images) > 1 else str(error))
        if not seen:
            raise InputError(" ".join(problems))
        return seen, problems

    def _base_from_camera(self, seen: DecodedImage, odometry: Odometry, newest_ns: int) -> np.ndarray:
        """Where a camera was when it took its image, in the base as it is at the newest image."""
        timeout, body = self._config().tf_timeout, odometry.body_frame
        if seen.frame == body:
            extrinsics = np.eye(4)
        else:
            extrinsics = self._transforms.lookup(body, seen.frame, seen.stamp_ns, timeout)
        if seen.stamp_ns != newest_ns:
            then, now = odometry.at(seen.stamp_ns, timeout), odometry.at(newest_ns, timeout)
            if then is not None and now is not None:
                return poses.invert(now) @ then @ extrinsics
        return extrinsics
