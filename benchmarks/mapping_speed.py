"""``python -m benchmarks.mapping_speed``: a map's making against its parts measured apart, and what a second process
gains.

Apart are the encoder's forward pass (times the views) and the head's step on one batch that is in memory already (times
the steps): what making the views, the buffer, drawing from it, checkpoints and calibration add is the rest. Each
process has one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.report import Row, machine, table, write_json  # noqa: E402
from dimm_ros.cli.console import console  # noqa: E402
from dimm_ros.config import PRESETS, TrainingConfig  # noqa: E402
from dimm_ros.data.open import open_recording  # noqa: E402
from dimm_ros.encoder.dinov2 import Encoder  # noqa: E402
from dimm_ros.encoder.patches import fit, normalise, patch_grid  # noqa: E402
from dimm_ros.head.model import MapHead  # noqa: E402
from dimm_ros.mapping.build import build_map  # noqa: E402
from dimm_ros.mapping.distributed import joined_workers  # noqa: E402
from dimm_ros.mapping.trainer import Normalisation, Trainer  # noqa: E402
from dimm_ros.mapping.training_views import TrainingViews  # noqa: E402
from dimm_ros.scene_map import SceneMap  # noqa: E402

BAR = 1.5
_PRESET = PRESETS["cpu"]
_ROUNDS = 15


def record(folder: Path) -> Path:
    """A short walk through the gallery."""
    from dimm_ros.gallery.recorder import record_bag
    from dimm_ros.gallery.scene import build_room
    from dimm_ros.gallery.trajectory import MOUNTS, trajectory
    from dimm_ros.geometry.camera import Camera

    stamps, world_from_base = trajectory(1, 5.0, 30.0)
    camera = Camera(320, 240, 200.0, 200.0, 159.5, 119.5)
    return record_bag(folder / "walk", build_room(), camera, stamps, world_from_base, MOUNTS["handheld"], image_every=4)


def make(recording: Path, output: Path, steps: int) -> None:
    """One of the processes that make the map; the first one prints the figures."""
    torch.set_num_threads(1)
    encoder = Encoder.open(_PRESET.encoder, device="cpu")
    begun = time.perf_counter()
    with joined_workers(torch.device("cpu")) as workers:
        result = build_map(
            open_recording(recording), output, encoder, head=_PRESET.head, training=_training(steps), workers=workers
        )
    if workers.first:
        print(json.dumps({"seconds": time.perf_counter() - begun} | result.seconds))


def _training(steps: int) -> TrainingConfig:
    return _PRESET.training.changed(steps=steps)


def run(recording: Path, folder: Path, steps: int, processes: int) -> Row:
    """Make the map with so many processes; its times and its loss."""
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    output = folder / f"by_{processes}.dimm"
    command = [
        sys.executable,
        *launcher,
        "-m",
        "benchmarks.mapping_speed",
        "--make",
        str(recording),
        "--output",
        str(output),
        "--steps",
        str(steps),
    ]
    text = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ).stdout
    times, figures = json.loads(text.splitlines()[-1]), SceneMap.load(output).header.figures
    return {
        "processes": processes,
        "views": int(figures["views"]),
        "mapping, s": times["seconds"],
        "features, s": times["features"],
        "training, s": times["training"],
        "steps/s": steps / times["training"],
        "loss": figures["loss"],
    }


def apart(recording: Path) -> tuple[float, float]:
    """Seconds of the encoder's forward pass on one image, and of the head's step on a batch in memory."""
    torch.set_num_threads(1)
    frame, encoder, training = (
        open_recording(recording).frames[0],
        Encoder.open(_PRESET.encoder, device="cpu"),
        _PRESET.training,
    )
    grid = patch_grid(frame.camera, _PRESET.encoder.input_size)
    pixels = torch.from_numpy(normalise(fit(frame.load(), frame.camera, grid)))[None]
    patches, views = grid.rows * grid.columns, 8
    rays = torch.from_numpy(np.tile(grid.rays, (views, 1))).float()
    data = TrainingViews(
        patches=torch.randn(patches * views, encoder.dim).half(),
        camera_rays=rays,
        directions=rays,
        view_of=torch.arange(views, dtype=torch.int32).repeat_interleave(patches),
        context=torch.randn(views, encoder.context_dim).half(),
        centres=torch.randn(views, 3).double(),
        rotations=torch.eye(3).double().repeat(views, 1, 1),
        frame_of=torch.arange(views).int(),
    )
    trainer = Trainer(
        MapHead(encoder.dim, encoder.context_dim, _PRESET.head), data, Normalisation.of(data.centres), training
    )
    return _median(lambda: encoder.encode(pixels)), _median(trainer.step)


def _median(function) -> float:
    times = []
    for _ in range(2 + _ROUNDS):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


def main() -> None:
    """Print the tables and keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="recording to map; default: a walk through the gallery")
    parser.add_argument("--steps", type=int, default=200, help="of the training")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2], help="how many make the map together")
    parser.add_argument(
        "--results", type=Path, default=Path("results/mapping_speed"), help="where the figures are kept as JSON"
    )
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make is not None:
        return make(given.make, given.output, given.steps)
    facts, rows = machine(["cpu"]), []
    with tempfile.TemporaryDirectory(prefix="dimm_mapping_") as folder:
        recording = given.data or record(Path(folder))
        for processes in given.processes:
            forward, step = apart(recording)  # again for each, near it in time
            row = run(recording, Path(folder), given.steps, processes)
            parts = row["views"] * forward + given.steps * step
            rows.append(
                row
                | {
                    "apart, s": parts / processes,
                    "ratio": row["mapping, s"] * processes / parts,
                    "ms/forward": 1e3 * forward,
                    "ms/step": 1e3 * step,
                }
            )
    console.print(json.dumps(facts), markup=False, highlight=False, soft_wrap=True)
    console.print(
        table(f"mapping against forward passes and head steps measured apart; the bar of the ratio is {BAR:g}", rows)
    )
    console.print(
        f"figures: {write_json({'machine': facts, 'rows': rows}, given.results)}", highlight=False, soft_wrap=True
    )


if __name__ == "__main__":
    main()
