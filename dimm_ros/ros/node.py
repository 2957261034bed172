"""``localizer``: camera images in, the robot's pose in the map out."""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor

from dimm_ros.data.bridge import bridge
from dimm_ros.errors import MapError, ParameterError
from dimm_ros.ros import parameters
from dimm_ros.ros.broadcast import PoseBroadcaster
from dimm_ros.ros.cameras import ImageWithInfo, Rig, StampClocks
from dimm_ros.ros.health import Health, Vitals
from dimm_ros.ros.lifecycle import ACTIVE, FINALIZED, INACTIVE, UNCONFIGURED, ManagedNode, spin, transition
from dimm_ros.ros.logs import forward_log
from dimm_ros.ros.maps import Maps
from dimm_ros.ros.process import command_line, end_process, make_node, start_ros
from dimm_ros.ros.reporter import Reporter, sentence
from dimm_ros.ros.tf import bare, make_transforms
from dimm_ros.ros.tf_conflicts import WatchedTransforms
from dimm_ros.ros.worker import LatestWorker

if TYPE_CHECKING:
    from dimm_ros.ros.pipeline import Pipeline

_WATCHDOG_S = 1.0

#: A start that failed is tried again after this long: the disk with the map may be mounted by then.
_RETRY_S = 5.0

#: How long one thread may keep Python from the other: between two operators of the network the worker asks for it again
#: and again, and at Python's own 5 ms the executor's messages would hold each of them up.
_SWITCH_S = 0.0005

#: How long an image that is under way may hold up a transition.
_SETTLE_S = 10.0


class LocalizerNode(ManagedNode):
    """Subscribes ``image`` and ``camera_info``; publishes ``localization_pose``, ``status``, TF and ``/diagnostics``.

    Configured, the maps are loaded; active, the topics are there; ``status`` and ``/diagnostics`` always are. The
    executor's thread only passes messages on; one worker thread loads the maps and localizes the newest image.

    Args:
        open_localizer: called as ``dimm_ros.atlas.open_map``; None takes that.
        options: of ``rclpy.node.Node``.
    """

    def __init__(self, *, open_localizer: Callable | None = None, **options) -> None:
        super().__init__("localizer", **options)
        self._config = parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._health = Health()
        self._reporter = Reporter(self, self._health, lambda: self._config)
        self._reporter.extras.append(Vitals(self._health).values)
        self._maps = Maps(lambda: self._config, self._reporter, self.get_logger(), open_localizer)
        self._worker: LatestWorker[Sequence[ImageWithInfo]] | None = None
        self._pipeline: Pipeline | None = None
        self._rig: Rig | None = None
        self._clocks = StampClocks()
        self._answered_s = -math.inf  # when the worker was done with an image (steady clock), infinite while it is not
        self._self_start = False
        self._undo = ExitStack()
        self._wake = self.create_guard_condition(self._on_wake)
        # Steady: it must also speak up when a simulation's clock does not run.
        self._watchdog = self.create_timer(
            _WATCHDOG_S, self._on_watchdog, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        forward_log(self)

    # Transitions

    def start(self) -> None:
        """Configure and activate once the node is spun; where that fails, again every few seconds and whenever a
        parameter is set."""
        self._self_start = True
        self.create_timer(_RETRY_S, self._on_wake, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._wake.trigger()

    @transition
    def on_configure(self) -> None:
        """Load the maps and warm up; blocks, but goes on saying so."""
        if self._worker is None or self._maps.stale():
            self._load()
        while not self._maps.loaded.wait(_WATCHDOG_S):
            if not self.context.ok():
                raise MapError("The process ends while the map is being loaded.")
            self._on_watchdog()
        if self._maps.failed:
            self._unload()
            raise MapError(self._maps.doing)

    @transition
    def on_activate(self) -> None:
        """Make the topics."""
        # torch takes seconds to import; the maps have done it
        from dimm_ros.ros.pipeline import Pipeline
        from dimm_ros.ros.requests import Requests

        config, undo = self._config, self._undo
        self._health.reset()
        self._transforms = WatchedTransforms(
            make_transforms(self), self, config.tf_mode, config.odom_frame, config.base_frame
        )
        undo.callback(self._transforms.destroy)
        self._broadcaster = PoseBroadcaster(self._transforms, config.tf_mode, config.odom_frame)
        self._requests = Requests(
            self, self._reporter, self._map_frames, self._forget, lambda hint: self._pipeline.hint(hint)
        )
        undo.callback(self._requests.destroy)
        self._pipeline = Pipeline(
            self,
            lambda: self._config,
            lambda: self._maps.atlas,
            self._reporter,
            self._health,
            self._transforms,
            self._broadcaster,
            self._requests.pose_published,
        )
        undo.callback(self._pipeline.destroy)
        undo.callback(self.destroy_timer, self.create_timer(1.0 / config.tf_rate, self._pipeline.send_transform))
        undo.callback(self._settle)
        self._clocks = StampClocks()
        self._rig = Rig(self, config, config.camera_names, self._on_images)
        undo.callback(self._rig.destroy)
        for camera in self._rig.cameras:
            info = f" and camera_info on '{camera.info.topic}'" if camera.info is not None else ""
            self.get_logger().info(f"Waiting for images on '{camera.image.topic}'{info}.")

    @transition
    def on_deactivate(self) -> None:
        """Take the topics away; the maps stay loaded, TF is no longer published."""
        self._close()

    @transition
    def on_cleanup(self) -> None:
        """Undo ``on_configure``."""
        self._unload()

    @transition
    def on_shutdown(self) -> None:
        """Release everything but ``status`` and ``/diagnostics``, which say that the node is finalized."""
        self.release()

    @transition
    def on_error(self) -> None:
        """After a bug in a transition: unconfigured again, with nothing left over."""
        self.release()

    def release(self) -> None:
        """Undo all transitions, from any state."""
        self._self_start = False
        self._close()
        self._unload()

    def _load(self) -> None:
        self._unload()
        self._worker = LatestWorker(self._maps.expect(), self._handle, "dimm_inference", self._on_worker_error)
        self._worker.call(self._try_bridge)
        self._worker.call(self._wake.trigger)
        self._worker.start()

    def _unload(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(timeout=self._patience_s) and self.context.ok():
            self.get_logger().warning("The worker's thread is still busy; it ends after that.")
        self._maps.release()

    def _close(self) -> None:
        """Undo ``on_activate``, or as much of it as was done."""
        self._undo.close()
        self._rig, self._reporter.trouble = None, self._maps.trouble
        self._health.forget()

    def _settle(self) -> None:
        """The cameras are gone; wait for the image that is under way."""
        self._pipeline = None
        if not self._worker.settle(self._patience_s) and self.context.ok():
            self.get_logger().warning("An image is still under way; what comes of it is not published.")

    @property
    def _patience_s(self) -> float:
        """How long to wait for the worker: at the process's end not at all, since nothing can be published any more."""
        return _SETTLE_S if self.context.ok() else 0.0

    # Worker's thread

    def _handle(self, images: Sequence[ImageWithInfo]) -> None:
        pipeline = self._pipeline
        if pipeline is None:
            return
        self._answered_s = math.inf
        try:
            pipeline.handle(images)
        finally:
            self._answered_s = time.monotonic()

    def _try_bridge(self) -> None:
        """Once, before an image has to wait for it."""
        if trouble := bridge().trouble:
            self.get_logger().warning(trouble)

    def _change_maps(self) -> None:
        pipeline = self._pipeline
        if self._maps.change() and pipeline is not None:
            pipeline.forget(everything=True)
            pipeline.show_map()

    def _on_worker_error(self, error: Exception) -> None:
        """A bug outside what deals with its own errors; the next image gets its turn."""
        self._reporter.last_reason = sentence(error)  # for /diagnostics, until the next status
        self.get_logger().error("".join(traceback.format_exception(error)))

    # Executor's thread

    def _on_wake(self) -> None:
        """Go on with the start that ``start`` has asked for."""
        if not self._self_start or self.state != UNCONFIGURED:
            return
        if self._worker is None:
            self._load()  # in the background, so that parameters can be set meanwhile
        elif self._maps.loaded.is_set() and self.change("configure") and self.change("activate"):
            self._self_start = False

    def _on_images(self, images: Sequence[ImageWithInfo]) -> None:
        self._health.received()
        config = self._config
        if self._clocks.jumped_back(images, self._reporter.now_ns(), config.max_image_age, config.gate.clock_jump_s):
            self.get_logger().warning("The images' time jumped back: TF and the state begin anew.")
            if self._worker.clear() is not None:  # it is of the time before
                self._health.dropped()
            self._transforms.clear()
            self._pipeline.forget(everything=True)
        if self._worker.submit(images) is not None:
            self._health.dropped()

    def _on_watchdog(self) -> None:
        """Once a second: say why nothing arrives, and how things are."""
        if not self.context.ok():
            return
        state, name = self.state, self.get_fully_qualified_name()
        if state != ACTIVE or self._rig is None:
            reason = {
                INACTIVE: f"The node is inactive; activate it: ros2 lifecycle set {name} activate",
                FINALIZED: "The node was shut down; start its process again.",
            }.get(state, self._maps.doing)
            self._reporter.say(reason)
            self._reporter.diagnose(reason, failed=self._maps.failed)
            return
        self._reporter.trouble = self._maps.trouble or self._transforms.conflict()
        silent = [camera for camera in self._rig.cameras if camera.image.silent_s > _WATCHDOG_S]
        # A player that waits for each answer is silent while an image is under way, and that is no fault of its.
        waiting = len(silent) == len(self._rig.cameras) and time.monotonic() - self._answered_s <= _WATCHDOG_S
        if silent and not waiting:
            self._reporter.say(" ".join(camera.explain() for camera in silent))
        self._reporter.diagnose(self._reporter.last_reason)

    def _on_set_parameters(self, changed: list) -> SetParametersResult:
        known = {declaration.name: declaration for declaration in parameters.declarations()}
        ours = {one.name: one.value for one in changed if one.name in known}
        fixed = [name for name in ours if not known[name].live]
        if fixed and self.state != UNCONFIGURED:
            hint = f"ros2 lifecycle set {self.get_fully_qualified_name()}"
            return SetParametersResult(
                successful=False,
                reason=f"'{fixed[0]}' can be set only while the node is unconfigured: {hint} deactivate, then {hint} "
                "cleanup.",
            )
        try:
            self._config = parameters.read(self, ours)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._maps.apply_rules()
        if self.state in (INACTIVE, ACTIVE) and {"map", "maps"} & set(ours):
            self._worker.call(self._change_maps)
        self._wake.trigger()
        return SetParametersResult(successful=True)

    def _forget(self, everything: bool) -> None:
        self._pipeline.forget(everything=everything)

    def _map_frames(self) -> dict[str, str]:
        return {one.name: self._config.map_frame or bare(one.frame_id) for one in self._maps.atlas.localizers}


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the process's exit status, or ends the process with it."""
    args = sys.argv if args is None else args
    # Before torch is loaded: on a busy computer its threads, spinning while they wait for each other, cost ten times
    # the computation itself.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.setswitchinterval(_SWITCH_S)
    node, status = None, 0
    try:
        command_line(args)
        start_ros(args)
        node = make_node(LocalizerNode)
        if node.get_parameter("autostart").value:
            node.start()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spin(executor, node.context, node.get_logger().error)
    except ParameterError as error:
        print(f"localizer: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        pass
    finally:
        rclpy.try_shutdown()  # first: what waits for the worker sees that there is nothing to wait for
        if node is not None:
            node.release()
            node.destroy_node()
    if node is not None:
        end_process(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
