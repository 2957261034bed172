"""A lifecycle node that outlives wrong requests and failing transitions.

rclpy's own raises inside the executor when it is asked for a transition that its state does not have (rclpy#1209),
which ends the process, and drops what a transition raises without a word.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from dimm_ros.errors import DimmError

#: A callback that fails every time must not keep the processor busy.
_BUG_PAUSE_S = 0.05

UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED = "unconfigured", "inactive", "active", "finalized"


def transition(method: Callable[[ManagedNode], None]) -> Callable[[ManagedNode, object], TransitionCallbackReturn]:
    """Make a lifecycle callback of a method that raises.

    A DimmError fails the transition, and the node stays in the state it came from; any other exception is a bug: it is
    logged with its trace and leads to ``on_error``.
    """

    @functools.wraps(method)
    def callback(self: ManagedNode, state: object) -> TransitionCallbackReturn:
        name = method.__name__.removeprefix("on_")
        try:
            method(self)
        except DimmError as error:
            self.get_logger().error(f"Transition '{name}' failed: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:  # noqa: BLE001  rclpy would turn it into an error, too, but say nothing
            self.get_logger().error(f"Transition '{name}' failed, by a bug:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    return callback


def spin(executor: Executor, context: Context, on_error: Callable[[str], object] | None = None) -> None:
    """Spin until the context is shut down, through the races that rclpy leaves.

    Args:
        on_error: called with the trace of what a callback raises, and spinning goes on; None lets it out.
    """
    while context.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except _rclpy.InvalidHandle:
            pass  # something was destroyed while the executor was about to wait for it
        except Exception as error:  # noqa: BLE001  one callback's bug must not end the robot's localization
            if isinstance(error, _rclpy.RCLError) and not context.ok():
                return  # shut down while the executor was about to wait
            if on_error is None:
                raise
            on_error(f"A callback failed, by a bug:\n{traceback.format_exc()}")
            time.sleep(_BUG_PAUSE_S)


class ManagedNode(LifecycleNode):
    """``rclpy.lifecycle.LifecycleNode`` that answers an illegal request with ``success: false`` and a sentence in the
    log.
    """

    def __init__(self, name: str, **options) -> None:
        super().__init__(name, **options)
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state

    @property
    def state(self) -> str:
        """Label of the present state: unconfigured, inactive, active or finalized, or that of a transition under
        way.
        """
        return self._state_machine.current_state[1]

    def destroy_node(self) -> None:
        """As in rclpy, which keeps the state machine and, by it, the participant that others see."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def change(self, label: str) -> bool:
        """Make a transition from within the process, on the executor's thread; returns whether it succeeded."""
        request = ChangeState.Request(transition=Transition(label=label))
        return self._on_change_state(request, ChangeState.Response()).success

    def _on_change_state(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        asked, state = request.transition, self.state
        legal = {number: label for number, label, *_ in self._state_machine.available_transitions}
        # As in rclpy, the label decides where one is given.
        if asked.label not in legal.values() if asked.label else asked.id not in legal:
            choices = f"possible here: {', '.join(sorted(set(legal.values())))}" if legal else "it has none"
            self.get_logger().warning(
                f"There is no transition '{asked.label or asked.id}' in state '{state}'; {choices}."
            )
            response.success = False
            return response
        try:
            return self._change_state(request, response)
        except Exception as error:  # noqa: BLE001  rcl's own errors, such as a context that is shut down meanwhile
            self.get_logger().error(
                f"Transition '{asked.label or asked.id}' from state '{state}' was not completed: {error}"
            )
            response.success = False
            return response
