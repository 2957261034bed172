"""``localizer``: camera images in, the robot's pose in the map out."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseWithCovarianceStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from dimm_ros.data.camera_info import camera_from_info
from dimm_ros.errors import DimmError, InputError, ParameterError, TransformError
from dimm_ros.geometry.camera import Camera
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros import parameters
from dimm_ros.ros.broadcast import PoseBroadcaster
from dimm_ros.ros.health import Health, State
from dimm_ros.ros.images import to_rgb
from dimm_ros.ros.messages import floor_covariance, stamp_ns, to_pose_with_covariance, to_stamp, transport_covariance
from dimm_ros.ros.tf import make_transforms
from dimm_ros.ros.watchdog import watch
from dimm_ros.ros.worker import LatestWorker

#: A camera to warm up with before camera_info is known: most robots' cameras are 4:3.
_TYPICAL_CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)

#: Images whose stamp lies this far before the last one's mean that time began anew (a bag loops, a simulation resets).
_JUMP_BACK_NS = 10**9

_WATCHDOG_S = 1.0
_LOG_THROTTLE_S = 5.0

_DIAGNOSTIC_LEVEL = {
    State.LOCALIZED: DiagnosticStatus.OK, State.DEGRADED: DiagnosticStatus.WARN,
    State.UNINITIALIZED: DiagnosticStatus.WARN, State.LOST: DiagnosticStatus.ERROR,
}


class LocalizerNode(Node):
    """Subscribes ``image`` and ``camera_info``; publishes ``localization_pose``, ``status``, TF and ``/diagnostics``.

    The executor's thread only passes messages on; one worker thread loads the map and localizes the newest image. The
    four transitions are those of a lifecycle node.

    Args:
        open_localizer: called as ``Localizer.open``; None takes that.
        options: of ``rclpy.node.Node``.
    """

    def __init__(self, *, open_localizer: Callable | None = None, **options) -> None:
        super().__init__("localizer", **options)
        self._open_localizer = open_localizer
        self._config = parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._health = Health()
        self._localizer = None
        self._not_ready = "The node is not configured."
        self._camera: Camera | None = None
        self._camera_error = ""
        self._last_stamp_ns: int | None = None
        self._last_reason = ""
        self._worker: LatestWorker | None = None
        self._image = self._info = None
        self._logged: dict[str, float] = {}
        _forward_log(self)

    # Transitions

    def configure(self) -> None:
        """Make publishers and timers and begin to load the map, on the worker's thread."""
        config = self._config
        self._transforms = make_transforms(self)
        self._broadcaster = PoseBroadcaster(self._transforms, config.tf_mode, config.odom_frame)
        self._pose_publisher = self.create_publisher(PoseWithCovarianceStamped, "localization_pose", 10)
        self._status_publisher = self.create_publisher(LocalizationStatus, "status", 10)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady: it must also speak up when a simulation's clock does not run.
        self._watchdog = self.create_timer(_WATCHDOG_S, self._on_watchdog, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._tf_timer = self.create_timer(1.0 / config.tf_rate, self._on_tf_timer)
        self._service = self.create_service(SetBool, "~/activate", self._on_activate)
        self._not_ready = "The map is still being loaded."
        self._worker = LatestWorker(self._load, self._process, "dimm_inference")
        self._worker.start()

    def activate(self) -> None:
        """Subscribe to the camera."""
        if self._image is not None:
            return
        self._health.reset()
        self._start_anew()
        config = self._config
        reliability = ReliabilityPolicy.RELIABLE if config.image_reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
        # Sensor data, latest only: an image that waits is an image too old.
        qos = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=reliability)
        best_effort = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
        image_type = CompressedImage if config.image_transport == "compressed" else Image
        self._info = watch(self, "camera_info", CameraInfo, best_effort, self._on_camera_info)
        self._image = watch(self, "image", image_type, qos, self._on_image)
        self.get_logger().info(f"Waiting for images on '{self._image.topic}' and camera_info on '{self._info.topic}'.")

    def deactivate(self) -> None:
        """Unsubscribe; the map stays loaded, TF is no longer published."""
        if self._image is None:
            return
        for watched in (self._image, self._info):
            self.destroy_subscription(watched.subscription)
        self._image = self._info = None
        self._worker.clear()
        self._start_anew()

    def cleanup(self) -> None:
        """Undo ``configure``."""
        self.deactivate()
        if self._worker is None:
            return
        self._worker.stop(timeout=10.0)
        self._worker = self._localizer = None
        self._not_ready = "The node is not configured."
        self.destroy_timer(self._watchdog)
        self.destroy_timer(self._tf_timer)
        self.destroy_service(self._service)
        for publisher in (self._pose_publisher, self._status_publisher, self._diagnostics_publisher):
            self.destroy_publisher(publisher)
        self._transforms.destroy()

    # Worker's thread

    def _load(self) -> None:
        """Open the map and warm up; a failure is kept as the reason that every status gives."""
        log, config = self.get_logger(), self._config
        try:
            if not config.map:
                raise ParameterError("No map is given; set the parameter 'map' to a file that 'dimm map' wrote.")
            started = time.perf_counter()
            log.info(f"Loading map '{config.map}' ...")
            opener = self._open_localizer
            if opener is None:
                from dimm_ros.localizer import Localizer  # torch takes seconds to import, and the node is up by now

                opener = Localizer.open
            localizer = opener(
                config.map, device=config.device, weights=config.weights or None, solver=config.solver, acceptance=config.acceptance,
            )
            log.info(f"Map '{localizer.name}' loaded in {time.perf_counter() - started:.1f} s; warming up ...")
            self._not_ready = f"The map '{localizer.name}' is loaded, the network is warming up."
            started = time.perf_counter()
            localizer.warm_up(self._camera or _TYPICAL_CAMERA)
            log.info(f"Warm-up took {time.perf_counter() - started:.1f} s; ready.")
            self._localizer = localizer
            self._apply_live()
        except Exception as error:  # noqa: BLE001  whatever it is, the node stays and says so
            self._not_ready = _sentence(error)
            log.error(f"Cannot localize: {self._not_ready}")
            if not isinstance(error, DimmError):
                log.error(traceback.format_exc())

    def _process(self, message: Image | CompressedImage) -> None:
        """Localize one image and publish what came of it."""
        status = self._new_status(stamp_ns(message.header.stamp))
        try:
            self._check_age(status)
            self._localize(message, status)
        except _Dropped as error:
            self._health.dropped()
            status.reason = str(error)
        except Exception as error:  # noqa: BLE001  one bad image, or one bug, must not end the robot's localization
            self._health.rejected(self._now_ns())
            status.reason = _sentence(error)
            if not isinstance(error, DimmError):
                self.get_logger().error(traceback.format_exc())
        self._publish_status(status)

    def _check_age(self, status: LocalizationStatus) -> None:
        limit, now_ns = self._config.max_image_age, self._now_ns()
        if now_ns == 0:
            raise _Dropped("use_sim_time is set, but nothing is published on /clock.")
        age = (now_ns - stamp_ns(status.header.stamp)) * 1e-9
        status.image_age_ms = age * 1e3
        if limit > 0 and age > limit:
            hint = " (to replay a bag set use_sim_time and publish its clock)" if age > 60 else ""
            raise _Dropped(f"The image is {age:.2f} s old, more than max_image_age ({limit:g} s){hint}.")
        if limit > 0 and age < -limit:
            raise _Dropped(f"The image is dated {-age:.2f} s in the future; synchronise the clocks of the camera's computer and this one.")

    def _localize(self, message: Image | CompressedImage, status: LocalizationStatus) -> None:
        config, localizer = self._config, self._localizer
        if self._camera_error:
            raise InputError(self._camera_error)
        camera = self._camera
        if camera is None:
            raise InputError(self._info.explain(self) if self._info else "No camera_info has arrived.")
        started = time.perf_counter()
        image = to_rgb(message)
        decode_ms = (time.perf_counter() - started) * 1e3
        estimate = localizer.localize(image, camera)

        status.inliers, status.rays, status.inlier_ratio = int(estimate.inliers), int(estimate.rays), float(estimate.inlier_ratio)
        stages = estimate.stage_ms
        status.prepare_ms = decode_ms + stages.get("prepare", 0.0)
        status.encode_ms, status.head_ms, status.solve_ms = (float(stages.get(name, 0.0)) for name in ("encode", "head", "solve"))
        status.total_ms = decode_ms + stages.get("total", 0.0)
        if not estimate.accepted:
            self._health.rejected(self._now_ns())
            status.reason = estimate.reason
            return
        if not np.isfinite(estimate.covariance).all() or not np.isfinite(estimate.world_from_camera).all():
            raise InputError("The pose is not finite: the rays do not fix it.")

        stamp, map_frame = stamp_ns(message.header.stamp), status.header.frame_id
        camera_frame = config.camera_frame or message.header.frame_id
        body_frame = config.base_frame or camera_frame
        camera_from_body = np.eye(4)
        if body_frame != camera_frame:
            camera_from_body = self._transforms.lookup(camera_frame, body_frame, stamp, config.tf_timeout)
        map_from_body = estimate.world_from_camera @ camera_from_body
        covariance = transport_covariance(estimate.covariance, estimate.world_from_camera, camera_from_body)
        covariance = floor_covariance(covariance, config.min_position_sigma, np.radians(config.min_rotation_sigma_deg))
        self._publish(self._pose_publisher, to_pose_with_covariance(map_frame, stamp, map_from_body, covariance))

        now_ns = self._now_ns()
        status.accepted = True
        status.image_age_ms = (now_ns - stamp) * 1e-6
        try:
            self._broadcaster.update(map_frame, body_frame, map_from_body, stamp, now_ns, config.tf_timeout)
        except TransformError as error:
            status.reason = f"The pose is published, the transform of tf_mode {config.tf_mode} is not: {error}"
        self._health.answered(now_ns, status.total_ms, status.image_age_ms, complete=not status.reason)
        self._on_tf_timer()

    # Executor's thread

    def _on_image(self, message: Image | CompressedImage) -> None:
        stamp = stamp_ns(message.header.stamp)
        self._image.heard(stamp)
        self._health.received()
        if self._last_stamp_ns is not None and stamp < self._last_stamp_ns - _JUMP_BACK_NS:
            self.get_logger().warning("The images' time jumped back: TF and the state begin anew.")
            self._transforms.clear()
            self._start_anew()
        self._last_stamp_ns = stamp
        if self._localizer is None:
            self._health.rejected(self._now_ns())
            status = self._new_status(stamp)
            status.reason = self._not_ready
            self._publish_status(status)
        elif self._worker.submit(message) is not None:
            self._health.dropped()

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._info.heard(stamp_ns(message.header.stamp))
        try:
            camera, error = camera_from_info(message), ""
        except InputError as problem:
            camera, error = None, str(problem)
        if camera != self._camera and camera is not None:
            self.get_logger().info(
                f"Camera: {camera.width}x{camera.height}, focal length {camera.fx:.1f} {camera.fy:.1f} px, {camera.distortion_model}.",
            )
        if error and error != self._camera_error:
            self.get_logger().error(f"camera_info on '{self._info.topic}' cannot be used: {error}")
        self._camera_error, self._camera = error, camera

    def _on_watchdog(self) -> None:
        """Once a second: say why nothing arrives, and how things are."""
        if self._image is None:
            self._publish_diagnostics("The node is inactive; call the service ~/activate.")
            return
        reason = self._last_reason
        if self._image.silent_s > _WATCHDOG_S:
            reason = self._not_ready if self._localizer is None else self._image.explain(self)
            if self._localizer is not None and self._camera is None and not self._camera_error:
                reason += f" {self._info.explain(self)}"
            status = self._new_status(self._now_ns())
            status.reason = reason
            self._publish_status(status)
        self._publish_diagnostics(reason)

    def _on_tf_timer(self) -> None:
        if not self.context.ok():
            return
        self._broadcaster.send(self._now_ns(), self._config.transform_tolerance, self._config.lost_after)

    def _on_activate(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data:
            self.activate()
        else:
            self.deactivate()
        response.success, response.message = True, "active" if request.data else "inactive"
        return response

    def _on_set_parameters(self, changed: list) -> SetParametersResult:
        known = {declaration.name for declaration in parameters.declarations()}
        try:
            self._config = parameters.read(self, {one.name: one.value for one in changed if one.name in known})
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._apply_live()
        return SetParametersResult(successful=True)

    # Helpers

    def _apply_live(self) -> None:
        if self._localizer is not None:
            self._localizer.solver, self._localizer.acceptance = self._config.solver, self._config.acceptance

    def _start_anew(self) -> None:
        """No pose is known any more."""
        self._health.forget()
        self._broadcaster.clear()
        self._last_stamp_ns = None

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _new_status(self, nanoseconds: int) -> LocalizationStatus:
        status = LocalizationStatus()
        localizer = self._localizer
        status.header.stamp = to_stamp(nanoseconds)
        status.header.frame_id = self._config.map_frame or (localizer.frame_id if localizer is not None else "")
        status.map_name = localizer.name if localizer is not None else ""
        return status

    def _publish_status(self, status: LocalizationStatus) -> None:
        counts = self._health.counts
        status.received, status.answered, status.rejected, status.dropped = (
            counts.received, counts.answered, counts.rejected, counts.dropped,
        )
        status.state = int(self._health.state(self._now_ns(), self._config.lost_after))
        self._last_reason = status.reason
        self._publish(self._status_publisher, status)
        if status.reason:
            self._warn(status.reason)

    def _warn(self, text: str) -> None:
        """Log a sentence, each kind of sentence (its first words) at most once in a while."""
        key, now = text[:24], time.monotonic()
        if now - self._logged.get(key, -np.inf) >= _LOG_THROTTLE_S:
            self._logged[key] = now
            self.get_logger().warning(text)

    def _publish_diagnostics(self, reason: str) -> None:
        state = self._health.state(self._now_ns(), self._config.lost_after)
        localizer, counts = self._localizer, self._health.counts
        level = _DIAGNOSTIC_LEVEL[state]
        if localizer is None and not self._not_ready.startswith("The map"):
            level = DiagnosticStatus.ERROR
        values = {"state": state.name, "map": localizer.name if localizer is not None else "", **vars(counts)}
        values |= {name: f"{value:.1f}" for name, value in self._health.figures().items()}
        status = DiagnosticStatus(
            level=level, name=f"{self.get_name()}: localization", hardware_id=self.get_fully_qualified_name(),
            message=reason or state.name, values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = to_stamp(self._now_ns())
        self._publish(self._diagnostics_publisher, message)

    def _publish(self, publisher, message) -> None:
        try:
            publisher.publish(message)
        except _rclpy.RCLError:
            if self.context.ok():  # otherwise the process was told to stop while an image was under way
                raise


class _Dropped(Exception):
    """An image that is not worth localizing."""


class _RosHandler(logging.Handler):
    """Python's log records of dimm_ros in ROS's log: which weights were found, and where."""

    def __init__(self, node: Node) -> None:
        super().__init__(logging.INFO)
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


def _forward_log(node: Node) -> None:
    log = logging.getLogger("dimm_ros")
    log.handlers = [handler for handler in log.handlers if not isinstance(handler, _RosHandler)] + [_RosHandler(node)]
    log.setLevel(logging.INFO)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, DimmError) else f"Unexpected {type(error).__name__}: {error} (a bug; the log has its trace)."


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the process's exit status."""
    # Before torch is loaded: on a busy computer its threads, spinning while they wait for each other, cost ten times
    # the computation itself.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    rclpy.init(args=args)
    node = None
    try:
        node = LocalizerNode()
        node.configure()
        if node.get_parameter("autostart").value:
            node.activate()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except ParameterError as error:
        print(f"localizer: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if node is not None:
            node.cleanup()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
