"""The node's parts by themselves: worker, health, transforms by mode."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from dimm_ros.errors import TransformError
from dimm_ros.geometry import poses
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.broadcast import PoseBroadcaster
from dimm_ros.ros.health import Counts, Health, LocalizationState
from dimm_ros.ros.worker import LatestWorker

from .waiting import PATIENCE

SECOND = 10**9


def fail(error: Exception) -> None:
    raise AssertionError("the worker failed") from error


class TestWorker:
    def test_newest_waiting_item_wins(self) -> None:
        busy, go, done, handled = threading.Event(), threading.Event(), threading.Event(), []

        def handle(item: int) -> None:
            handled.append(item)
            busy.set()
            go.wait(PATIENCE)
            if item == 4:
                done.set()

        worker = LatestWorker(lambda: None, handle, "test", fail)
        worker.start()
        assert worker.submit(1) is None
        assert busy.wait(PATIENCE)
        assert [worker.submit(item) for item in (2, 3, 4)] == [None, 2, 3]
        go.set()
        assert done.wait(PATIENCE)
        assert handled == [1, 4]
        assert worker.stop(PATIENCE)

    def test_prepares_before_the_first_item(self) -> None:
        order, done = [], threading.Event()
        handle = lambda item: (order.append(item), done.set())  # noqa: E731
        worker = LatestWorker(lambda: order.append("prepare"), handle, "test", fail)
        worker.submit("item")
        worker.start()
        assert done.wait(PATIENCE) and order == ["prepare", "item"]
        assert worker.stop(PATIENCE)

    def test_taken_back_item_is_not_handled(self) -> None:
        handled: list[int] = []
        worker = LatestWorker(lambda: None, handled.append, "test", fail)
        worker.submit(1)
        assert worker.clear() == 1
        worker.start()
        assert worker.stop(PATIENCE) and handled == []

    def test_stops_without_having_started(self) -> None:
        assert LatestWorker(lambda: None, print, "test", fail).stop(1)

    def test_settling_waits_for_the_item_under_way(self) -> None:
        busy, go, handled = threading.Event(), threading.Event(), []

        def handle(item: int) -> None:
            busy.set()
            go.wait(PATIENCE)
            handled.append(item)

        worker = LatestWorker(lambda: None, handle, "test", fail)
        worker.start()
        worker.submit(1)
        assert busy.wait(PATIENCE)
        worker.submit(2)
        assert not worker.settle(0.01)  # still under way
        threading.Timer(0.05, go.set).start()
        assert worker.settle(PATIENCE) and handled == [1]  # the one that waited is taken back
        assert worker.stop(PATIENCE) and handled == [1]

    def test_goes_on_after_what_raises(self) -> None:
        told, done = [], threading.Event()

        def prepare() -> None:
            raise ZeroDivisionError

        def handle(item: int) -> None:
            if item == 1:
                raise KeyError(item)
            done.set()

        def on_error(error: Exception) -> None:
            told.append(type(error))
            worker.submit(len(told))

        worker = LatestWorker(prepare, handle, "test", on_error)
        worker.start()
        assert done.wait(PATIENCE) and told == [ZeroDivisionError, KeyError]
        assert worker.stop(PATIENCE)


class TestHealth:
    def test_states_have_the_messages_numbers(self) -> None:
        assert {state.name: state.value for state in LocalizationState} == {
            name: getattr(LocalizationStatus, name) for name in LocalizationState.__members__
        }

    def test_state_follows_results(self) -> None:
        health = Health()
        assert health.state(0, 5.0) is LocalizationState.UNINITIALIZED
        health.rejected(SECOND)
        assert health.state(SECOND, 5.0) is LocalizationState.UNINITIALIZED
        health.answered(2 * SECOND, 10.0, 20.0)
        assert health.state(2 * SECOND, 5.0) is LocalizationState.LOCALIZED
        assert health.state(5 * SECOND, 5.0) is LocalizationState.DEGRADED  # silence
        health.rejected(3 * SECOND)
        assert health.state(3 * SECOND, 5.0) is LocalizationState.DEGRADED
        assert health.state(7 * SECOND + 1, 5.0) is LocalizationState.LOST
        health.answered(8 * SECOND, 10.0, 20.0, complete=False)
        assert health.state(8 * SECOND, 5.0) is LocalizationState.DEGRADED
        health.forget()
        assert health.state(8 * SECOND, 5.0) is LocalizationState.UNINITIALIZED
        assert health.counts == Counts(0, 2, 2, 0)
        health.reset()
        assert health.counts == Counts()

    def test_figures(self) -> None:
        health = Health()
        assert health.figures() == {}
        for index in range(5):
            health.answered(index * SECOND // 4, 10.0 + index, 30.0)
        assert health.figures() == {
            "compute_ms_median": 12.0,
            "image_age_ms_median": 30.0,
            "pose_rate_hz": pytest.approx(4.0),
        }


class Recorded:
    """TF that is known beforehand and remembers what is sent."""

    def __init__(self, known: dict[tuple[str, str], np.ndarray]) -> None:
        self.known, self.sent = known, []

    def lookup(self, target: str, source: str, nanoseconds: int, timeout_s: float) -> np.ndarray:
        if (target, source) not in self.known:
            raise TransformError(f"TF does not link '{target}' to '{source}'.")
        return self.known[target, source]

    def send(self, parent: str, child: str, nanoseconds: int, pose: np.ndarray) -> None:
        self.sent.append((parent, child, nanoseconds, pose))


class TestBroadcaster:
    ODOM_FROM_BASE = poses.make_pose(poses.exp_so3(np.array([0, 0, 0.5])), np.array([1.0, 2.0, 0.0]))
    MAP_FROM_BASE = poses.make_pose(poses.exp_so3(np.array([0, 0, -1.0])), np.array([-4.0, 2.0, 0.0]))

    def test_silent_before_the_first_pose_and_after_clear(self) -> None:
        transforms = Recorded({("odom", "base"): self.ODOM_FROM_BASE})
        broadcaster = PoseBroadcaster(transforms, "map_odom", "odom")
        broadcaster.send(SECOND, 0.1, 5.0)
        assert transforms.sent == []
        broadcaster.update("map", "base", self.MAP_FROM_BASE, 0, 0, 0.0)
        broadcaster.send(2 * SECOND, 0.1, 5.0)
        broadcaster.clear()
        broadcaster.send(3 * SECOND, 0.1, 5.0)
        assert len(transforms.sent) == 1
        parent, child, stamp, pose = transforms.sent[0]
        assert (parent, child, stamp) == ("map", "odom", 2 * SECOND + SECOND // 10)
        np.testing.assert_allclose(pose @ self.ODOM_FROM_BASE, self.MAP_FROM_BASE, atol=1e-12)

    def test_correction_lasts_but_a_pose_does_not(self) -> None:
        for mode, count in (("map_odom", 2), ("map_base", 1)):
            transforms = Recorded({("odom", "base"): self.ODOM_FROM_BASE} if mode == "map_odom" else {})
            broadcaster = PoseBroadcaster(transforms, mode, "odom")
            broadcaster.update("map", "base", self.MAP_FROM_BASE, 0, 0, 0.0)
            broadcaster.send(SECOND, 0.0, 5.0)
            broadcaster.send(10 * SECOND, 0.0, 5.0)
            assert len(transforms.sent) == count

    def test_stamps_never_repeat(self) -> None:
        transforms = Recorded({})
        broadcaster = PoseBroadcaster(transforms, "map_base", "odom")
        broadcaster.update("map", "base", self.MAP_FROM_BASE, 0, 0, 0.0)
        for now in (SECOND, SECOND, SECOND - 1, SECOND + 1):
            broadcaster.send(now, 0.0, 5.0)
        assert [sent[2] for sent in transforms.sent] == [SECOND, SECOND + 1]

    def test_failed_update_keeps_the_last_correction(self) -> None:
        transforms = Recorded({("odom", "base"): self.ODOM_FROM_BASE})
        broadcaster = PoseBroadcaster(transforms, "map_odom", "odom")
        broadcaster.update("map", "base", self.MAP_FROM_BASE, 0, 0, 0.0)
        transforms.known.clear()
        with pytest.raises(TransformError, match="'odom' to 'base'"):
            broadcaster.update("map", "base", np.eye(4), SECOND, SECOND, 0.0)
        broadcaster.send(2 * SECOND, 0.0, 5.0)
        np.testing.assert_allclose(transforms.sent[0][3] @ self.ODOM_FROM_BASE, self.MAP_FROM_BASE, atol=1e-12)
