"""A minute of the soak (``make soak`` runs twenty): every fault once, in a process of its own, judged from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.soak.faults import FAULTS, schedule
from benchmarks.soak.prepare import second_of
from benchmarks.soak.run import Soak
from dimm_ros.scene_map import SceneMap

SEED = 4


@pytest.mark.long
def test_a_minute_of_faults(ros_walk, tmp_path: Path) -> None:
    # Rays alone: a minute is too short to tell what landmarks keep for good from memory that grows; 'make soak' has
    # them.
    plain = tmp_path / "plain.dimm"
    SceneMap.load(ros_walk.map).rays_alone().save(plain)
    soak = Soak(ros_walk.bag.parent / "mapping", plain, second_of(plain, tmp_path), tmp_path)
    figures = soak.run(45.0, SEED, quick=True)
    print(json.dumps(figures, indent=2))
    assert figures["checks"] == dict.fromkeys(figures["checks"], True), (tmp_path / "localizer.log").read_text()[-4000:]
    assert {name: row["times"] for name, row in figures["faults"].items()} == {fault.name: 1 for fault in FAULTS}
    assert figures["poses"] > 100


def test_the_schedule_is_that_of_its_seed() -> None:
    def first_rounds(seed: int) -> list:
        faults = schedule(seed, quick=False)
        return [next(faults) for _ in range(2 * len(FAULTS))]

    assert first_rounds(3) == first_rounds(3) != first_rounds(5)
    for start in (0, len(FAULTS)):
        assert {fault for fault, _, _ in first_rounds(3)[start : start + len(FAULTS)]} == set(FAULTS)
    assert all(fault.seconds[0] <= length <= fault.seconds[1] for fault, length, _ in first_rounds(3))


def test_naming_is_specific() -> None:
    """No fault's words are found in the sentence of another kind, nor in a bug's."""
    sentences = {
        "black image": "The image is black: the lens is covered.",
        "wrong encoding": "Image encoding 'rgb9' is not known; known are rgb8.",
        "wrong size": "The image is 320x240 but camera_info says 640x480; scale it.",
        "NaN camera_info": "The camera's intrinsics hold NaN or infinite values.",
        "gap": "No image arrives on '/camera/image_raw' (1 publisher, none so far).",
    }
    for fault in FAULTS:
        assert not fault.named_in("Unexpected ZeroDivisionError: division by zero (a bug; the log has its trace).")
        assert not fault.named_in("")
        matching = {name for name, text in sentences.items() if fault.named_in(text)}
        assert matching <= {fault.name, "gap"} and (fault.name not in sentences or fault.name in matching)
