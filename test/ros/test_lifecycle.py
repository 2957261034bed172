"""The node's lifecycle through its real services: every transition, legal and illegal, and a start that needs
mending.
"""

from __future__ import annotations

import threading
import time

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from dimm_ros.errors import MapError
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.lifecycle import spin
from dimm_ros.ros.node import LocalizerNode

from .robot import KnownPose
from .waiting import PATIENCE

STATES = {
    "unconfigured": State.PRIMARY_STATE_UNCONFIGURED,
    "inactive": State.PRIMARY_STATE_INACTIVE,
    "active": State.PRIMARY_STATE_ACTIVE,
    "finalized": State.PRIMARY_STATE_FINALIZED,
}

#: Of the lifecycle's design: state, transition, the state it leads to.
LEGAL = [
    ("unconfigured", "configure", "inactive"),
    ("unconfigured", "shutdown", "finalized"),
    ("inactive", "activate", "active"),
    ("inactive", "cleanup", "unconfigured"),
    ("inactive", "shutdown", "finalized"),
    ("active", "deactivate", "inactive"),
    ("active", "shutdown", "finalized"),
]

NUMBERS = {
    "configure": {"unconfigured": Transition.TRANSITION_CONFIGURE},
    "cleanup": {"inactive": Transition.TRANSITION_CLEANUP},
    "activate": {"inactive": Transition.TRANSITION_ACTIVATE},
    "deactivate": {"active": Transition.TRANSITION_DEACTIVATE},
    "shutdown": {
        "unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
        "inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
        "active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
    },
}


class Manager:
    """Drives a node's lifecycle from another node, as nav2's manager does."""

    def __init__(self, robot) -> None:
        self._robot, node = robot, robot.session.node
        self._clients = {
            kind: node.create_client(kind, f"/localizer/{name}")
            for kind, name in (
                (ChangeState, "change_state"),
                (GetState, "get_state"),
                (GetAvailableTransitions, "get_available_transitions"),
                (SetParameters, "set_parameters"),
            )
        }
        assert all(client.wait_for_service(10.0) for client in self._clients.values())

    def call(self, request):
        kind = next(kind for kind in self._clients if isinstance(request, kind.Request))
        future = self._clients[kind].call_async(request)
        self._robot.wait(future.done)
        return future.result()

    def change(self, label: str = "", number: int = 0) -> bool:
        return self.call(ChangeState.Request(transition=Transition(label=label, id=number))).success

    def set(self, name: str, value: object):
        return self.call(SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])).results[0]

    @property
    def state(self) -> str:
        state = self.call(GetState.Request()).current_state
        assert STATES[state.label] == state.id
        return state.label

    def go(self, state: str) -> None:
        """To a primary state, from any but finalized, by the shortest way."""
        ways = {
            ("unconfigured", "inactive"): ["configure"],
            ("unconfigured", "active"): ["configure", "activate"],
            ("inactive", "active"): ["activate"],
            ("inactive", "unconfigured"): ["cleanup"],
            ("active", "inactive"): ["deactivate"],
            ("active", "unconfigured"): ["deactivate", "cleanup"],
        }
        for label in ways.get((self.state, state), []):
            assert self.change(label)
        assert self.state == state


@pytest.fixture
def managed(make_robot):
    """A node that waits for its manager, and the manager."""

    def make(**parameters):
        robot = make_robot(ready=False, start=False, **parameters)
        return robot, Manager(robot)

    return make


def test_every_legal_transition_twice(managed) -> None:
    robot, manager = managed()
    assert manager.state == "unconfigured"
    for _ in range(2):
        for state, label, goal in LEGAL:
            if label == "shutdown":
                continue
            manager.go(state)
            available = manager.call(GetAvailableTransitions.Request()).available_transitions
            assert {one.transition.label for one in available} == {name for start, name, _ in LEGAL if start == state}
            assert manager.change(number=NUMBERS[label][state]) and manager.state == goal
        manager.go("active")
        robot.wait_ready()
        robot.answer_of(robot.localize())
        manager.go("unconfigured")
    assert {topic for topic, _ in robot.node.get_publisher_names_and_types_by_node("localizer", "/")} & {
        "/localization_pose",
        "/tf",
    } == set()
    assert not robot._images.get_subscription_count() and not robot._infos.get_subscription_count()


@pytest.mark.parametrize("start", ["unconfigured", "inactive", "active"])
@pytest.mark.parametrize("by", ["label", "number"])
def test_shutdown_from_every_state(managed, start, by) -> None:
    robot, manager = managed()
    manager.go(start)
    assert manager.change("shutdown") if by == "label" else manager.change(number=NUMBERS["shutdown"][start])
    assert manager.state == "finalized"
    assert robot.says("was shut down")


@pytest.mark.parametrize("state", list(STATES))
def test_illegal_transitions_are_refused_and_harm_nothing(managed, state) -> None:
    robot, manager = managed()
    if state == "finalized":
        assert manager.change("shutdown")
    else:
        manager.go(state)
    labels = {label for start, label, _ in LEGAL if start == state}
    numbers = {NUMBERS[label][state] for label in labels}
    everything = {
        getattr(Transition, name)
        for name in dir(Transition)
        if name.startswith("TRANSITION_") and name != "TRANSITION_CALLBACK_SUCCESS"
    }
    for number in sorted({value for value in everything if isinstance(value, int)} - numbers | {77, 255}):
        assert not manager.change(number=number), number
        assert manager.state == state
    for label in {
        "configure",
        "cleanup",
        "activate",
        "deactivate",
        "shutdown",
        "create",
        "destroy",
        "transition_success",
        "dance",
    } - labels:
        assert not manager.change(label), label
        assert manager.state == state
    if state == "active":
        robot.wait_ready()
        robot.answer_of(robot.localize())


def test_a_map_that_cannot_be_loaded_fails_configure(managed) -> None:
    localizer = KnownPose()
    good, localizer.open = localizer.open, refuse("The map hall.dimm is damaged.")
    robot, manager = managed(localizer=localizer)
    for _ in range(2):
        assert not manager.change("configure") and manager.state == "unconfigured"
        assert robot.says("is damaged")
    localizer.open = good
    assert manager.set("tf_mode", "none").successful  # mended while unconfigured
    assert manager.change("configure") and manager.change("activate")
    robot.wait_ready()
    robot.answer_of(robot.localize())


def test_a_bug_in_a_transition_ends_unconfigured(managed) -> None:
    robot, manager = managed()
    manager.go("inactive")
    good = robot.node._maps.release
    robot.node._maps.release = refuse(ZeroDivisionError("division by zero"), times=1, then=good)
    assert not manager.change("cleanup")
    assert manager.state == "unconfigured"  # by on_error
    manager.go("active")
    robot.wait_ready()
    robot.answer_of(robot.localize())


def test_inactive_node_keeps_its_map_and_says_what_to_do(managed, session) -> None:
    diagnostics = []
    session.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    robot, manager = managed()
    manager.go("active")
    robot.wait_ready()
    robot.answer_of(robot.localize())
    manager.go("inactive")
    said = lambda: robot.collector.reports[-1].message  # noqa: E731
    assert robot.says("lifecycle set /localizer activate")
    assert said().map_name == "known" and said().state == LocalizationStatus.UNINITIALIZED
    robot.wait(
        lambda: (
            diagnostics and {one.key: one.value for one in diagnostics[-1].status[0].values}["lifecycle"] == "inactive"
        )
    )
    opened = robot.localizer.opened
    manager.go("active")
    robot.wait_ready()
    robot.answer_of(robot.localize())
    assert robot.localizer.opened == opened == 1


def test_parameters_that_need_a_cleanup_say_so(managed) -> None:
    robot, manager = managed()
    manager.go("active")
    refused = manager.set("tf_mode", "none")
    assert not refused.successful and "deactivate" in refused.reason and "cleanup" in refused.reason
    manager.go("unconfigured")
    assert manager.set("tf_mode", "none").successful and not manager.set("tf_mode", "both").successful
    manager.go("active")
    robot.wait_ready()
    robot.send_info()
    robot.send_static("base_link", "camera_optical_frame", robot.BASE_FROM_CAMERA)
    stamp = robot.send_image()
    robot.answer_of(stamp)  # tf_mode none needs no odometry
    assert robot.report_of(stamp).message.reason == ""  # comes after the pose


def test_deactivating_waits_for_the_image_under_way(managed) -> None:
    robot, manager = managed()
    manager.go("active")
    robot.wait_ready()
    robot.localizer.free.clear()
    stamp = robot.localize()
    assert robot.localizer.entered.wait(PATIENCE)
    threading.Timer(0.2, robot.localizer.free.set).start()
    assert manager.change("deactivate")
    robot.answer_of(stamp)


@pytest.mark.parametrize("meanwhile", ["inactive", "active"])
def test_what_is_still_under_way_after_deactivating_is_left_out(managed, monkeypatch, meanwhile) -> None:
    """It took longer than is waited for; meanwhile the node is inactive, or active anew, and knows nothing of it."""
    monkeypatch.setattr("dimm_ros.ros.node._SETTLE_S", 0.05)
    robot, manager = managed()
    manager.go("active")
    robot.wait_ready()
    robot.localizer.free.clear()
    old = robot.localize()
    assert robot.localizer.entered.wait(PATIENCE)
    manager.go("inactive")
    manager.go(meanwhile)
    robot.localizer.free.set()
    assert robot.node._worker.settle(PATIENCE) and robot.node._health.counts.answered == 0
    manager.go("active")
    robot.wait_ready()
    new = robot.localize()
    robot.answer_of(new)
    status = robot.report_of(new).message
    assert (status.received, status.answered, status.dropped) == (1, 1, 0)
    assert [answer.stamp_ns for answer in robot.collector.answers] == [new] and robot.collector.report_of(old) is None


def test_the_process_ends_without_waiting_for_what_is_being_loaded(session) -> None:
    """Importing torch and warming up can take a minute, and launch kills after ten seconds."""
    begun, go, context = threading.Event(), threading.Event(), Context()
    signals = rclpy.SignalHandlerOptions.NO
    rclpy.init(args=[], context=context, domain_id=session.domain_id, signal_handler_options=signals)
    node = LocalizerNode(
        open_localizer=lambda entry, **options: (begun.set(), go.wait(PATIENCE)),
        context=context,
        use_global_arguments=False,
        parameter_overrides=[Parameter("map", value="hall")],
    )
    configuring = threading.Thread(target=node.change, args=("configure",))
    configuring.start()
    assert begun.wait(PATIENCE)
    started = time.monotonic()
    context.try_shutdown()
    configuring.join(PATIENCE)
    node.release()
    node.destroy_node()
    took = time.monotonic() - started
    go.set()
    assert took < PATIENCE / 2  # the map would go on loading for twice that


def test_autostart_survives_a_bad_map_and_recovers(make_robot, session) -> None:
    diagnostics = []
    session.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    localizer = KnownPose()
    good, localizer.open = (
        localizer.open,
        lambda entry, **options: good(entry, **options) if entry == "good" else refuse(f"No map {entry}.")(),
    )
    robot = make_robot(ready=False, localizer=localizer, map="bad")
    assert robot.says("No map bad.")
    robot.wait(
        lambda: (
            diagnostics
            and diagnostics[-1].status[0].level == b"\x02"
            and "No map bad." in diagnostics[-1].status[0].message
        )
    )
    manager = Manager(robot)
    assert manager.state == "unconfigured"
    assert manager.set("map", "worse").successful
    assert robot.says("No map worse.")
    assert manager.set("map", "good").successful
    robot.wait_ready()
    robot.answer_of(robot.localize())


def test_autostart_tries_again_by_itself(make_robot, monkeypatch) -> None:
    """A map whose disk is mounted late: nobody need set a parameter, nor launch drive the node."""
    monkeypatch.setattr("dimm_ros.ros.node._RETRY_S", 0.1)
    localizer = KnownPose()
    localizer.open = refuse("No map yet.", times=3, then=localizer.open)
    robot = make_robot(ready=False, localizer=localizer)
    robot.wait_ready()
    robot.answer_of(robot.localize())
    assert localizer.opened == 1 and Manager(robot).state == "active"


def test_a_callback_that_raises_does_not_end_the_node(session) -> None:
    """As the process spins it; each failure is told."""
    told, context = [], Context()
    rclpy.init(
        args=[], context=context, domain_id=session.domain_id, signal_handler_options=rclpy.SignalHandlerOptions.NO
    )
    node = Node("clumsy", context=context, use_global_arguments=False)
    calls = []
    node.create_timer(0.01, lambda: (calls.append(1), 1 / 0))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    enough = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        if len(told) >= 3:
            enough.set()

    thread = threading.Thread(target=spin, args=(executor, context, tell))
    thread.start()
    assert enough.wait(PATIENCE)
    context.try_shutdown()
    thread.join(PATIENCE)
    assert not thread.is_alive() and len(calls) >= 3 and all("ZeroDivisionError" in text for text in told)


def refuse(error: str | Exception, times: int = -1, then=None):
    """A function that raises, so many times."""
    left = [times]

    def raising(*arguments, **options):
        if left[0] == 0:
            return then(*arguments, **options)
        left[0] -= 1
        raise MapError(error) if isinstance(error, str) else error

    return raising
