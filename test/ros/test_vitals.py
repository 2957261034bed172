"""Further values of /diagnostics, and pictures that show nothing."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray

from dimm_ros.data.image_checks import why_blind
from dimm_ros.ros.health import Health, Vitals


def test_rates_are_those_of_the_last_seconds() -> None:
    health, now = Health(), [0.0]
    vitals = Vitals(health, lambda: now[0])
    assert vitals.values() == {}

    def seconds(count: int, images: int, poses: int) -> dict[str, str]:
        for _ in range(count):
            now[0] += 1.0
            for _ in range(images):
                health.received()
            for _ in range(poses):
                health.answered(0, 1.0, 1.0)
            values = vitals.values()
        return values

    assert seconds(3, 30, 10) == {"image_rate_hz": "30.0", "pose_rate_hz": "10.0"}
    assert seconds(6, 0, 0) == {"image_rate_hz": "0.0", "pose_rate_hz": "0.0"}
    health.reset()  # activated anew: counts begin at zero, rates are never negative
    assert vitals.values() == {}
    assert seconds(1, 5, 5) == {"image_rate_hz": "5.0", "pose_rate_hz": "5.0"}


def test_gpu_memory(monkeypatch) -> None:
    """Said where CUDA is in use; a torch that another thread is importing right now is no reason to fail."""
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert "gpu_memory_mb" not in Vitals(Health()).values()
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        memory_reserved=lambda: 3 << 20,
        max_memory_reserved=lambda: 5 << 20,
        mem_get_info=lambda: (7 << 20, 9 << 20),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert Vitals(Health()).values() == {
        "gpu_memory_mb": "3",
        "gpu_memory_peak_mb": "5",
        "gpu_memory_free_mb": "7",
        "gpu_memory_total_mb": "9",
    }


@pytest.mark.parametrize("level, word", [(0, "black"), (14, "black"), (255, "white"), (128, "one colour")])
def test_blind_images_are_named(level, word) -> None:
    grain = np.random.default_rng(0).integers(-2, 3, (48, 64, 3))
    assert word in why_blind(np.clip(level + grain, 0, 255).astype(np.uint8))


def test_pictures_are_not_blind() -> None:
    dim = np.random.default_rng(0).integers(0, 30, (48, 64, 3)).astype(np.uint8)
    assert why_blind(dim) == ""
    assert why_blind(np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3))) == ""


def test_diagnostics_of_the_node(make_robot, session) -> None:
    """Rates, latency, inliers, state and map, each under its name."""
    received = []
    session.node.create_subscription(DiagnosticArray, "/diagnostics", received.append, 10)
    robot = make_robot()
    values = lambda: {one.key: one.value for one in received[-1].status[0].values} if received else {}  # noqa: E731

    def told() -> bool:
        robot.report_of(robot.localize())
        return float(values().get("image_rate_hz", 0)) > 0 and "compute_ms_median" in values()

    robot.wait(told)
    assert values()["state"] == "LOCALIZED" and values()["map"] == "known" and values()["inliers"] == "90 of 100 rays"
    assert float(values()["pose_rate_hz"]) > 0 and float(values()["compute_ms_median"]) >= 9.0
    assert float(values()["image_age_ms_median"]) > 0
