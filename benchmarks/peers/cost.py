"""How the product's cost grows with the work: mapping with images, memory with the buffer, a query with the map's size
and with rays.

What a time does not depend on is made up: tokens are constant and heads untrained. Every point runs in a process of its
own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import localize_speed
from benchmarks.report import Store, machine
from dimm_ros.config import PRESETS
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.head.global_pose import GlobalPose
from dimm_ros.head.model import MapHead
from dimm_ros.mapping.trainer import Normalisation, Trainer
from dimm_ros.mapping.training_views import ROWS, VIEWS, TrainingViews
from dimm_ros.progress import ProgressCallback

IMAGES = (100, 200, 400, 700)
INPUT_SIZES = (224, 336, 448, 560, 672)  # longer side of the encoder's input
RAYS = (96, 192, 384, 768)  # asked of an image at the preset's input size
PATCHES = 768  # of one view at the preset's input size, 4:3
#: Kinds of cost, with the points each is measured at.
KINDS = {"input": INPUT_SIZES, "rays": RAYS, "map_size": IMAGES, "training": IMAGES}

_STEPS, _WARM_UP, _ROUNDS = 8, 2, 3


def run(data: Path, store: Store, end: float, progress: ProgressCallback) -> None:
    """Measure the points that the store lacks; none is begun after ``end`` (monotonic seconds)."""
    for kind, points in KINDS.items():
        for point in points:
            key = f"cost/{kind}/{point}"
            if key in store.figures or time.monotonic() > end:
                continue
            progress(f"cost: {kind}", points.index(point), len(points))
            command = [sys.executable, "-m", "benchmarks.peers", str(data), "--cost", kind, str(point)]
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if result.returncode == 0:
                store.put(key, json.loads(result.stdout.strip().splitlines()[-1]))


def measure(kind: str, point: int) -> dict:
    """Figures of one point."""
    figures = {"input": _input, "rays": _rays, "map_size": _map_size, "training": _training}[kind](point)
    return figures | {"machine": machine(["cpu"])}


def _input(input_size: int) -> dict:
    """Stages of a query at an input size, beside the encoder alone."""
    preset = PRESETS["cpu"]
    with tempfile.TemporaryDirectory() as folder:
        changed = preset.changed(encoder=preset.encoder.changed(input_size=input_size))
        return localize_speed.measure(
            localize_speed.untrained(changed, "cpu", Path(folder) / "untrained.dimm"), _ROUNDS
        )


def _rays(most: int) -> dict:
    """Stages of a query that asks so many of the image's patches."""
    with tempfile.TemporaryDirectory() as folder:
        localizer = localize_speed.untrained(PRESETS["cpu"], "cpu", Path(folder) / "untrained.dimm")
        localizer.solver = localizer.solver.changed(rays=most)
        return localize_speed.measure(localizer, _ROUNDS)


def _map_size(images: int) -> dict:
    """Stages of a query in a map of so many images, with its global pose part."""
    preset = PRESETS["cpu"]
    with tempfile.TemporaryDirectory() as folder:
        localizer = localize_speed.untrained(preset, "cpu", Path(folder) / "untrained.dimm")
        localizer.map.head.whole = GlobalPose(localizer.encoder.context_dim, images * preset.training.passes)
        path = Path(folder) / "whole.dimm"
        localizer.map.save(path)
        return localize_speed.measure(localizer, _ROUNDS) | {"map_bytes": path.stat().st_size}


def _training(images: int) -> dict:
    """Seconds of a training step, and the peak memory of the process, with a buffer of so many images' views."""
    from benchmarks.peers.measure import peak_mb

    preset = PRESETS["cpu"]
    before = peak_mb()
    encoder = Encoder.open(preset.encoder, device="cpu")
    data = constant_buffer(images * preset.training.passes, encoder)
    trainer = Trainer(
        MapHead(encoder.dim, encoder.context_dim, preset.head), data, Normalisation.of(data.centres), preset.training
    )
    times = []
    for _ in range(_WARM_UP + _STEPS):
        start = time.perf_counter()
        trainer.step()
        times.append(time.perf_counter() - start)
    buffer_mb = sum(getattr(data, name).nbytes for name in (*ROWS, *VIEWS)) / 2**20
    return {
        "step_seconds": statistics.median(times[_WARM_UP:]),
        "buffer_mb": buffer_mb,
        "imports_mb": before,
        "peak_mb": peak_mb(),
    }


def constant_buffer(views: int, encoder: Encoder) -> TrainingViews:
    """A feature buffer's, every page of them written."""
    rng = np.random.default_rng(0)
    rows = views * PATCHES
    rays = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((PATCHES, 3), dtype=np.float32)), dim=1)
    return TrainingViews(
        patches=torch.full((rows, encoder.dim), 0.1, dtype=torch.float16),
        camera_rays=rays.repeat(views, 1),
        directions=rays.repeat(views, 1),
        view_of=torch.arange(views, dtype=torch.int32).repeat_interleave(PATCHES),
        context=torch.from_numpy(rng.standard_normal((views, encoder.context_dim), dtype=np.float32)).half(),
        centres=torch.from_numpy(rng.standard_normal((views, 3))),
        rotations=torch.eye(3, dtype=torch.float64).repeat(views, 1, 1),
        frame_of=torch.arange(views, dtype=torch.int32),
    )
