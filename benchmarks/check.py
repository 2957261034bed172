"""``python -m benchmarks.check``: has this version become slower or worse than the committed figures? ``make
bench-check`` runs it.

Ratios alone are compared, since they hold from machine to machine: parts of a query and a step of the training to the
encoder's forward pass, timed by turns, and the error of a small map to that of retrieval on the same images. What is
more than 20 % worse is measured again,
and reported if it still is: one sentence each, exit code 1. ``--write`` commits this version's ratios instead.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

import numpy as np  # noqa: E402

from benchmarks import localize_speed  # noqa: E402
from benchmarks.report import machine, put_json  # noqa: E402
from dimm_ros.cli.console import console  # noqa: E402
from dimm_ros.config import PRESETS, EncoderConfig, HeadConfig, TrainingConfig  # noqa: E402

COMMITTED = Path(__file__).with_name("committed.json")
TOLERANCE = 0.2

#: What each ratio is, for the sentence about it. All are better when they are smaller.
MEANING = {
    "localize/encoder": "localize() against the encoder's forward pass",
    "head/encoder": "the head against the encoder's forward pass",
    "solve/encoder": "the solver against the encoder's forward pass",
    "prepare/encoder": "resizing and normalising an image against the encoder's forward pass",
    "step/encoder": "a step of the training against the encoder's forward pass",
    "error/retrieval": "the median position error of a small gallery map against retrieval's",
    "rotation_error/retrieval": "the median rotation error of a small gallery map against retrieval's",
}

_TURNS, _ROUNDS = 3, 3  # medians of medians
_STEPS = 5
_SEEDS = (0, 1, 2)  # of the small maps


def main(arguments: list[str] | None = None) -> int:
    """Measure, compare, report; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="commit this version's ratios")
    parser.add_argument("--committed", type=Path, default=COMMITTED, help="the ratios to compare with")
    given = parser.parse_args(arguments)
    measured = measure()
    if given.write:
        put_json(
            {"machine": machine(["cpu"]), "ratios": {name: round(value, 4) for name, value in measured.items()}},
            given.committed,
        )
        console.print(f"written: {given.committed}", highlight=False, soft_wrap=True)
        return 0
    committed = json.loads(given.committed.read_text(encoding="utf-8"))["ratios"]
    if regressions(measured, committed):
        again = measure()  # noise seldom strikes twice
        measured = {name: min(value, again[name]) for name, value in measured.items()}
    for name, value in measured.items():
        console.print(f"{name}: {value:.3f}, committed {committed.get(name, float('nan')):.3f}", highlight=False)
    found = regressions(measured, committed)
    for sentence in found:
        console.print(sentence, highlight=False, soft_wrap=True)
    return 1 if found else 0


def regressions(measured: dict[str, float], committed: dict[str, float], tolerance: float = TOLERANCE) -> list[str]:
    """A sentence for each ratio that has grown by more than the tolerance, is not measured any more, or was never
    committed.
    """
    found = []
    for name in sorted({*measured, *committed}):
        what = MEANING.get(name, name)
        if name not in measured:
            found.append(
                f"{name} ({what}) is committed but was not measured; renew {COMMITTED.name} with --write if it is gone "
                "on purpose."
            )
        elif name not in committed:
            found.append(f"{name} ({what}) was measured but is not committed; renew {COMMITTED.name} with --write.")
        elif not measured[name] <= (1 + tolerance) * committed[name]:  # so that NaN is a regression
            found.append(
                f"{name} ({what}) is {measured[name]:.3f} and was {committed[name]:.3f}: "
                f"{100 * (measured[name] / committed[name] - 1):.0f} % worse, "
                f"more than the {100 * tolerance:.0f} % allowed."
            )
    return found


def measure() -> dict[str, float]:
    """All ratios, in about a minute or two on two idle cores."""
    return _query_ratios() | {"step/encoder": _step_ratio()} | _error_ratios()


def _median_ratios(turn: Callable[[], dict[str, float]]) -> dict[str, float]:
    turns = [turn() for _ in range(_TURNS)]
    return {name: statistics.median(each[name] for each in turns) for name in turns[0]}


def _query_ratios() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        localizer = localize_speed.untrained(PRESETS["cpu"], "cpu", Path(folder) / "untrained.dimm")

        def turn() -> dict[str, float]:
            row = localize_speed.measure(localizer, _ROUNDS)
            return {
                f"{part}/encoder": row[part] / row["encoder alone"] for part in ("localize", "head", "solve", "prepare")
            }

        return _median_ratios(turn)


def _step_ratio() -> float:
    """Training steps and forward passes by turns."""
    import torch

    from benchmarks.peers.cost import constant_buffer
    from dimm_ros.encoder.dinov2 import Encoder
    from dimm_ros.head.model import MapHead
    from dimm_ros.mapping.trainer import Normalisation, Trainer

    preset = PRESETS["cpu"]
    encoder = Encoder.open(preset.encoder, device="cpu")
    data = constant_buffer(32, encoder)
    trainer = Trainer(
        MapHead(encoder.dim, encoder.context_dim, preset.head), data, Normalisation.of(data.centres), preset.training
    )
    image = torch.zeros(1, 3, 336, 448)
    steps, passes = [], []
    for number in range(_STEPS + 1):
        for work, times in ((trainer.step, steps), (lambda: encoder.encode(image), passes)):
            start = time.perf_counter()
            work()
            if number:  # the first of each is slow for reasons of its own
                times.append(time.perf_counter() - start)
    return statistics.median(steps) / statistics.median(passes)


def _error_ratios() -> dict[str, float]:
    """Small maps of a walk through the gallery, judged between the mapped images; medians over seeds."""
    from dimm_ros.encoder.dinov2 import Encoder
    from dimm_ros.gallery.conditions import film
    from dimm_ros.gallery.scene import build_room
    from dimm_ros.gallery.trajectory import MOUNTS, trajectory
    from dimm_ros.geometry.camera import Camera
    from dimm_ros.geometry.poses import pose_errors
    from dimm_ros.localizer import Localizer
    from dimm_ros.mapping.build import build_map
    from dimm_ros.mapping.retrieval import ReferenceViews

    encoder = Encoder.open(EncoderConfig(input_size=224), device="cpu")
    stamps, world_from_base = trajectory(1, 4.6, 20.0)
    room, camera = build_room(0, photographs=False), Camera(224, 168, 150.0, 150.0, 111.5, 83.5)
    poses = world_from_base @ MOUNTS["handheld"]
    mapped, queries = film(room, camera, stamps, poses, every=4), film(room, camera, stamps[2:], poses[2:], every=4)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in _SEEDS:
            path = Path(folder) / f"small_{seed}.dimm"
            training = TrainingConfig(steps=400, batch=512, passes=1, learning_rate=3e-3, seed=seed)
            build_map(mapped, path, encoder, head=HeadConfig(mappers=2, width=128, depth=1), training=training)
            localizer = Localizer.open(path, device="cpu")
            reference = ReferenceViews.load(path, localizer.map.header)
            own, retrieved = [], []
            for frame in queries.frames:
                # rejected ones count as well: acceptance is not what is judged
                estimate = localizer.localize(frame.load(), frame.camera)
                own.append(pose_errors(estimate.world_from_camera, frame.world_from_camera))
                retrieved.append(pose_errors(reference.nearest(estimate.cls), frame.world_from_camera))
            ratios.append(np.median(own, axis=0) / np.median(retrieved, axis=0))
    position, rotation = np.median(ratios, axis=0)
    return {"error/retrieval": float(position), "rotation_error/retrieval": float(rotation)}


if __name__ == "__main__":
    raise SystemExit(main())
