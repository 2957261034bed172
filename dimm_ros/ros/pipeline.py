"""The worker thread's part of the node: from image messages to a published pose, transform and status."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped

from dimm_ros.data.image_checks import why_blind
from dimm_ros.errors import DimmError, InputError, TransformError
from dimm_ros.ros.broadcast import PoseBroadcaster
from dimm_ros.ros.cameras import ImageWithInfo, why_untimely
from dimm_ros.ros.debug import DebugTopics
from dimm_ros.ros.estimator import Estimator, LocalizationResult
from dimm_ros.ros.health import Health, LocalizationState
from dimm_ros.ros.map_topics import MapTopics
from dimm_ros.ros.messages import floor_covariance, to_pose_with_covariance
from dimm_ros.ros.odometry import Odometry
from dimm_ros.ros.reporter import Reporter, publish, sentence
from dimm_ros.ros.tf import Transforms, bare
from dimm_ros.tracking.gate import PoseGate

if TYPE_CHECKING:
    from dimm_ros.atlas import Atlas
    from dimm_ros.localizer import Localizer
    from dimm_ros.msg import LocalizationStatus
    from dimm_ros.ros.lifecycle import ManagedNode
    from dimm_ros.ros.parameters import NodeConfig


@dataclass(frozen=True)
class Hint:
    """Somebody's word on where the robot is.

    Attributes:
        map_from_body: (4, 4).
        covariance: (6, 6).
        stamp_ns: when it was there.
        map_name: the map that it is about, None for any.
    """

    map_from_body: np.ndarray
    covariance: np.ndarray
    stamp_ns: int
    map_name: str | None


class Pipeline:
    """Localizes images and publishes the results; created on activation, destroyed on deactivation.

    What is believed (by the gate, the transform, the state) has an epoch, which ends when a service call resets it or
    gives a pose hint: every answer carries the epoch in which its image's turn began, and is refused once that has
    ended.
    ``forget`` and ``hint`` end the epoch and leave a request for the next image, so that other threads may call them.

    Args:
        node: makes the publishers.
        config: gives the parameters in force.
        atlas: gives the maps; they are loaded.
        reporter, health: what is said and counted.
        transforms: TF.
        broadcaster: the transform of ``tf_mode``.
        on_pose: called on the worker's thread with each published pose.
    """

    def __init__(
        self,
        node: ManagedNode,
        config: Callable[[], NodeConfig],
        atlas: Callable[[], Atlas],
        reporter: Reporter,
        health: Health,
        transforms: Transforms,
        broadcaster: PoseBroadcaster,
        on_pose: Callable[[PoseWithCovarianceStamped], None],
    ) -> None:
        self._node, self._config, self._atlas, self._on_pose = node, config, atlas, on_pose
        self._reporter, self._health, self._transforms, self._broadcaster = reporter, health, transforms, broadcaster
        self._poses = node.create_publisher(PoseWithCovarianceStamped, "localization_pose", 10)
        self._debug = DebugTopics(node)
        self._map_topics = MapTopics(node) if config().publish_map else None
        self._estimator = Estimator(config, atlas, transforms)
        self._gate = PoseGate(config().gate)
        self._odometry: Odometry | None = None
        self._lock = threading.Lock()  # of the epoch and of the word that is left
        self._epoch = 0
        self._forget, self._hint, self._closed = False, None, False
        self.show_map()

    def destroy(self) -> None:
        """Take the publishers off the node; nothing comes any more of an image that is still under way."""
        with self._lock:
            self._epoch += 1
            self._closed = True
        self._node.destroy_publisher(self._poses)
        self._debug.destroy()
        if self._map_topics is not None:
            self._map_topics.destroy()

    def show_map(self) -> None:
        """Have the current map's views and landmarks published for RViz, if they may be; nobody waits for it."""
        if self._map_topics is not None:
            localizer = self._atlas().current
            self._map_topics.publish(localizer.map, self._map_frame(localizer))

    def _map_frame(self, localizer: Localizer) -> str:
        return self._config().map_frame or bare(localizer.frame_id)

    def forget(self, *, everything: bool) -> None:
        """Believe nothing of what was; with ``everything`` the transform and the state end as well, at once."""
        with self._lock:
            self._epoch += 1
            self._hint, self._forget = None, True
            if everything:
                self._health.forget()
                self._broadcaster.clear()

    def hint(self, hint: Hint) -> None:
        """With the next image, believe nothing but this."""
        with self._lock:
            self._epoch += 1
            self._hint = hint

    @contextmanager
    def _believing(self, epoch: int) -> Iterator[None]:
        """Take over an answer of an epoch; whoever wants to end it meanwhile waits.

        Raises:
            Dropped: it has ended.
        """
        with self._lock:
            if epoch != self._epoch:
                raise Dropped("Localization began anew while the image was under way, so it is left out.")
            yield

    def handle(self, images: Sequence[ImageWithInfo]) -> None:
        """Localize the images of one time, and publish the result."""
        stamp = images[-1].stamp_ns
        status = self._reporter.new_status(stamp)
        try:
            self._check_age(status, stamp)
            self._localize(images, status)
        except Dropped as error:
            if self._closed:
                return
            self._health.dropped()
            status.reason = str(error)
        except Exception as error:  # noqa: BLE001  one bad image, or one bug, must not end the robot's localization
            if self._closed:
                return
            self._health.rejected(self._reporter.now_ns())
            status.reason = sentence(error)
            if not isinstance(error, DimmError):
                self._node.get_logger().error(traceback.format_exc())
        self._reporter.publish(status)

    def send_transform(self) -> None:
        """Broadcast the latest transform again."""
        if self._node.context.ok():
            config = self._config()
            self._broadcaster.send(self._reporter.now_ns(), config.transform_tolerance, config.lost_after)

    def _check_age(self, status: LocalizationStatus, stamp: int) -> None:
        now_ns = self._reporter.now_ns()
        if now_ns != 0:
            status.image_age_ms = (now_ns - stamp) * 1e-6
        why = why_untimely(stamp, now_ns, self._config().max_image_age)
        if why:
            raise Dropped(why)

    def _localize(self, images: Sequence[ImageWithInfo], status: LocalizationStatus) -> None:
        config, stamp = self._config(), images[-1].stamp_ns
        body_frame = config.base_frame or config.camera_frame or images[-1].frame
        odometry = self._odometry_of(body_frame)
        epoch = self._begin_turn(odometry)
        search = self._health.state(self._reporter.now_ns(), config.lost_after) in (
            LocalizationState.UNINITIALIZED,
            LocalizationState.LOST,
        )
        answer = self._estimator.solve(images, odometry, search=search)
        _fill(status, answer)
        self._reporter.saw(answer.estimate)
        map_frame = self._map_frame(answer.localizer)
        try:
            self._publish(answer, epoch, status, map_frame, body_frame, odometry)
        finally:  # pictures can wait, the pose cannot
            if not self._closed:
                self._debug.publish(answer.seen.image, answer.shown, answer.seen.frame, map_frame, stamp)

    def _publish(
        self,
        answer: LocalizationResult,
        epoch: int,
        status: LocalizationStatus,
        map_frame: str,
        body_frame: str,
        odometry: Odometry,
    ) -> None:
        """The pose of an estimate that is accepted and believed, and then the transform; else the reason in the
        status.
        """
        config, stamp = self._config(), answer.seen.stamp_ns
        if not answer.estimate.accepted:
            self._reject(status, why_blind(answer.seen.image) or answer.estimate.reason)
            return
        if (
            not np.isfinite(answer.estimate.covariance).all()
            or not np.isfinite(answer.estimate.world_from_camera).all()
        ):
            raise InputError("The pose is not finite: the rays do not fix it.")

        camera_from_body = np.eye(4)
        if body_frame != answer.seen.frame and answer.base_from_camera is None:
            camera_from_body = self._transforms.lookup(answer.seen.frame, body_frame, stamp, config.tf_timeout)
        map_from_body, covariance = answer.of_body(camera_from_body)
        covariance = floor_covariance(
            covariance * config.covariance_scale, config.min_position_sigma, np.radians(config.min_rotation_sigma_deg)
        )
        odom_from_body = (
            odometry.at(stamp, config.tf_timeout) if config.gate.enabled or config.tf_mode == "map_odom" else None
        )
        with self._believing(epoch):
            verdict = self._gate.judge(map_from_body, covariance, odom_from_body, stamp, answer.localizer.name)
            if not verdict.accepted:
                self._reject(status, verdict.reason)
                return
            message = to_pose_with_covariance(map_frame, stamp, map_from_body, covariance)
            self._take_over(answer, status, message, map_from_body, body_frame, odom_from_body)
            self._estimator.believe(answer, map_from_body, covariance, odom_from_body)

    def _take_over(
        self,
        answer: LocalizationResult,
        status: LocalizationStatus,
        message: PoseWithCovarianceStamped,
        map_from_body: np.ndarray,
        body_frame: str,
        odom_from_body: np.ndarray | None,
    ) -> None:
        """Publish a pose that is believed, and its transform; within its epoch, so nothing here waits."""
        config, localizer = self._config(), answer.localizer
        stamp, map_frame = answer.seen.stamp_ns, message.header.frame_id
        if localizer is not self._atlas().current:
            self._change_map(localizer)
        status.map_name, status.header.frame_id = localizer.name, map_frame
        publish(self._node, self._poses, message)
        self._on_pose(message)

        now_ns = self._reporter.now_ns()
        status.accepted = True
        status.image_age_ms = (now_ns - stamp) * 1e-6
        try:
            # it was waited for above
            self._broadcaster.update(map_frame, body_frame, map_from_body, stamp, now_ns, 0.0, odom_from_body)
        except TransformError as error:
            status.reason = f"The pose is published, the transform of tf_mode {config.tf_mode} is not: {error}"
        status.reason = " ".join(filter(None, (*answer.left_out, status.reason)))
        self._health.answered(now_ns, status.total_ms, status.image_age_ms, complete=not status.reason)
        self.send_transform()

    def _reject(self, status: LocalizationStatus, reason: str) -> None:
        self._estimator.doubt()
        self._health.rejected(self._reporter.now_ns())
        status.reason = reason

    def _odometry_of(self, body_frame: str) -> Odometry:
        config = self._config()
        if self._odometry is None or self._odometry.body_frame != body_frame:
            self._odometry = Odometry(
                self._transforms, config.odom_frame, body_frame, expected=config.tf_mode == "map_odom"
            )
        return self._odometry

    def _begin_turn(self, odometry: Odometry) -> int:
        """Carry out requests that came since the last image; returns the epoch."""
        config = self._config()
        if self._gate.config != config.gate:
            self._gate = PoseGate(config.gate)
        with self._lock:
            epoch, forget, hint = self._epoch, self._forget, self._hint
            self._forget, self._hint = False, None
        if forget:
            self._gate.forget()
            self._estimator.forget()
        if hint is not None:
            self._gate.hint(hint.map_from_body, hint.covariance, odometry.at(hint.stamp_ns, 0.0), hint.map_name)
            self._estimator.forget_windows()
        return epoch

    def _change_map(self, localizer: Localizer) -> None:
        """The images show another of the loaded maps."""
        self._node.get_logger().info(
            f"The images show map '{localizer.name}', no longer '{self._atlas().current.name}'."
        )
        self._atlas().select(localizer.name)
        self._reporter.map_name, self._reporter.map_frame = localizer.name, bare(localizer.frame_id)
        self._broadcaster.clear()
        self.show_map()


def _fill(status: LocalizationStatus, answer: LocalizationResult) -> None:
    """The numbers of an estimate."""
    estimate = answer.estimate
    status.inliers, status.rays, status.inlier_ratio = (
        int(estimate.inliers),
        int(estimate.rays),
        float(estimate.inlier_ratio),
    )
    stages = estimate.stage_ms
    status.prepare_ms = answer.decode_ms + stages.get("prepare", 0.0)
    status.encode_ms, status.head_ms, status.solve_ms = (
        float(stages.get(name, 0.0)) for name in ("encode", "head", "solve")
    )
    status.keypoints_ms, status.landmarks_ms = (float(stages.get(name, 0.0)) for name in ("keypoints", "landmarks"))
    status.basis, status.tracked = estimate.basis, answer.tracked
    status.landmarks, status.landmark_matches = estimate.landmarks, estimate.landmark_matches
    status.total_ms = answer.decode_ms + stages.get("total", 0.0)


class Dropped(Exception):
    """An image that is not worth localizing."""
