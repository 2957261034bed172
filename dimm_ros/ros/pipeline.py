"""The worker thread's part of the node: from an image message to a published pose, transform and status."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped

from dimm_ros.errors import DimmError, InputError, TransformError
from dimm_ros.ros.broadcast import PoseBroadcaster
from dimm_ros.ros.cameras import Shot
from dimm_ros.ros.debug import DebugTopics
from dimm_ros.ros.health import Health, State
from dimm_ros.ros.images import to_rgb
from dimm_ros.ros.messages import floor_covariance, to_pose_with_covariance, transport_covariance
from dimm_ros.ros.reporter import Reporter, publish, sentence
from dimm_ros.ros.tf import Transforms

if TYPE_CHECKING:
    from dimm_ros.atlas import Atlas
    from dimm_ros.localizer import Estimate, Localizer
    from dimm_ros.msg import LocalizationStatus
    from dimm_ros.ros.lifecycle import ManagedNode
    from dimm_ros.ros.parameters import NodeConfig


class Pipeline:
    """Localizes images and publishes what comes of them; made on activation, destroyed on deactivation.

    Args:
        node: makes the publishers.
        config: gives the parameters in force.
        atlas: gives the maps; they are loaded.
        reporter, health: what is said and counted.
        transforms: TF.
        broadcaster: the transform of ``tf_mode``.
    """

    def __init__(
        self, node: ManagedNode, config: Callable[[], NodeConfig], atlas: Callable[[], Atlas], reporter: Reporter, health: Health,
        transforms: Transforms, broadcaster: PoseBroadcaster,
    ) -> None:
        self._node, self._config, self._atlas = node, config, atlas
        self._reporter, self._health, self._transforms, self._broadcaster = reporter, health, transforms, broadcaster
        self._poses = node.create_publisher(PoseWithCovarianceStamped, "localization_pose", 10)
        self._debug = DebugTopics(node)

    def destroy(self) -> None:
        """Take the publishers off the node."""
        self._node.destroy_publisher(self._poses)
        self._debug.destroy()

    def handle(self, shots: Sequence[Shot]) -> None:
        """Localize what the cameras saw at one time, and publish what came of it."""
        shot = shots[0]
        status = self._reporter.new_status(shot.stamp_ns)
        try:
            self._check_age(status, shot.stamp_ns)
            self._localize(shot, status)
        except Dropped as error:
            self._health.dropped()
            status.reason = str(error)
        except Exception as error:  # noqa: BLE001  one bad image, or one bug, must not end the robot's localization
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
        limit, now_ns = self._config().max_image_age, self._reporter.now_ns()
        if now_ns == 0:
            raise Dropped("use_sim_time is set, but nothing is published on /clock.")
        age = (now_ns - stamp) * 1e-9
        status.image_age_ms = age * 1e3
        if limit > 0 and age > limit:
            hint = " (to replay a bag set use_sim_time and publish its clock)" if age > 60 else ""
            raise Dropped(f"The image is {age:.2f} s old, more than max_image_age ({limit:g} s){hint}.")
        if limit > 0 and age < -limit:
            raise Dropped(f"The image is dated {-age:.2f} s in the future; synchronise the clocks of the camera's computer and this one.")

    def _localize(self, shot: Shot, status: LocalizationStatus) -> None:
        config, atlas, camera = self._config(), self._atlas(), shot.camera
        if camera is None:
            raise InputError(shot.error)
        started = time.perf_counter()
        image = to_rgb(shot.message)
        decode_ms = (time.perf_counter() - started) * 1e3
        search = self._health.state(self._reporter.now_ns(), config.lost_after) in (State.UNINITIALIZED, State.LOST)
        localizer, estimate = atlas.localize(lambda localizer: localizer.localize(image, camera), search=search)
        _fill(status, estimate, decode_ms)

        stamp, map_frame = shot.stamp_ns, config.map_frame or localizer.frame_id
        camera_frame = config.camera_frame or shot.message.header.frame_id
        self._debug.publish(image, estimate, camera_frame, map_frame, stamp)
        if not estimate.accepted:
            self._health.rejected(self._reporter.now_ns())
            status.reason = estimate.reason
            return
        if not np.isfinite(estimate.covariance).all() or not np.isfinite(estimate.world_from_camera).all():
            raise InputError("The pose is not finite: the rays do not fix it.")
        body_frame = config.base_frame or camera_frame
        camera_from_body = np.eye(4)
        if body_frame != camera_frame:
            camera_from_body = self._transforms.lookup(camera_frame, body_frame, stamp, config.tf_timeout)
        if localizer is not atlas.current:
            self._change_map(localizer)
        status.map_name, status.header.frame_id = localizer.name, map_frame
        map_from_body = estimate.world_from_camera @ camera_from_body
        covariance = transport_covariance(estimate.covariance, estimate.world_from_camera, camera_from_body)
        covariance = floor_covariance(covariance, config.min_position_sigma, np.radians(config.min_rotation_sigma_deg))
        publish(self._node, self._poses, to_pose_with_covariance(map_frame, stamp, map_from_body, covariance))

        now_ns = self._reporter.now_ns()
        status.accepted = True
        status.image_age_ms = (now_ns - stamp) * 1e-6
        try:
            self._broadcaster.update(map_frame, body_frame, map_from_body, stamp, now_ns, config.tf_timeout)
        except TransformError as error:
            status.reason = f"The pose is published, the transform of tf_mode {config.tf_mode} is not: {error}"
        self._health.answered(now_ns, status.total_ms, status.image_age_ms, complete=not status.reason)
        self.send_transform()

    def _change_map(self, localizer: Localizer) -> None:
        """The images show another of the loaded maps."""
        self._node.get_logger().info(f"The images show map '{localizer.name}', no longer '{self._atlas().current.name}'.")
        self._atlas().select(localizer.name)
        self._reporter.map_name, self._reporter.map_frame = localizer.name, localizer.frame_id
        self._broadcaster.clear()


def _fill(status: LocalizationStatus, estimate: Estimate, decode_ms: float) -> None:
    """The numbers of an estimate."""
    status.inliers, status.rays, status.inlier_ratio = int(estimate.inliers), int(estimate.rays), float(estimate.inlier_ratio)
    stages = estimate.stage_ms
    status.prepare_ms = decode_ms + stages.get("prepare", 0.0)
    status.encode_ms, status.head_ms, status.solve_ms = (float(stages.get(name, 0.0)) for name in ("encode", "head", "solve"))
    status.total_ms = decode_ms + stages.get("total", 0.0)


class Dropped(Exception):
    """An image that is not worth localizing."""
