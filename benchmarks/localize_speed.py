"""``localize()`` of a 640x480 image against the encoder's own forward pass on the same image and device.

The map has the preset's size, the global pose part of some 500 images, and random weights: times do not depend on their
values. Both are timed in one run by turns, so that whatever else the machine does slows both; each follows the other as
often as itself.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import Row
from dimm_ros import __version__
from dimm_ros.config import PRESETS, Preset
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import fit, normalise, patch_grid
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.global_pose import GlobalPose
from dimm_ros.head.model import MapHead
from dimm_ros.localizer import Estimate, Localizer
from dimm_ros.scene_map import MapHeader, SceneMap

NAME = "localize_speed"
TITLE = "localize() on a 640x480 image against the encoder alone; medians (ms); the bar of the ratio is 1.10"

_CAMERA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
_PRESETS = {"cpu": ("cpu", "demo"), "cuda": ("cpu", "demo", "gpu")}
_ROUNDS = {"cpu": 10, "cuda": 50}  # of four measurements
_WARM_UP = 2
_VIEWS = 1500  # mapped


def run(devices: Sequence[str]) -> list[Row]:
    """Medians of every stage, of the whole and of the encoder, for the presets that suit each device."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for device in devices:
            for name in _PRESETS[device]:
                localizer = untrained(PRESETS[name], device, Path(folder) / "random.dimm")
                rows.append({"device": device, "preset": name} | measure(localizer, _ROUNDS[device]))
    return rows


def untrained(preset: Preset, device: str, path: Path) -> Localizer:
    """With an untrained map of the preset's sizes, by way of a file as always."""
    encoder = Encoder.open(preset.encoder, device="cpu")
    torch.manual_seed(0)
    head = MapHead(encoder.dim, encoder.context_dim, preset.head, GlobalPose(encoder.context_dim, _VIEWS))
    header = MapHeader(
        name="random",
        frame_id="map",
        created="",
        dimm_version=__version__,
        encoder=preset.encoder,
        encoder_sha256=encoder.weights.sha256,
        encoder_origin=encoder.weights.origin,
        patch_dim=encoder.dim,
        context_dim=encoder.context_dim,
        head=preset.head,
        training=preset.training,
        origin=(0.0, 0.0, 0.0),
        radius=1.0,
        sources=(),
    )
    SceneMap(header, head).save(path)
    return Localizer.open(path, device=device)


def measure(localizer: Localizer, rounds: int) -> Row:
    """Medians of the stages and of the encoder alone, by turns, over so many rounds of two images each."""
    image = np.random.default_rng(0).integers(0, 256, (_CAMERA.height, _CAMERA.width, 3), dtype=np.uint8)
    encoder = localizer.encoder
    grid = patch_grid(_CAMERA, encoder.config.input_size)
    pixels = torch.from_numpy(normalise(fit(image, _CAMERA, grid)))[None].to(encoder.device)

    def encode_ms() -> float:
        start = time.perf_counter()
        encoder.encode(pixels)
        if encoder.device.type == "cuda":
            torch.cuda.synchronize(encoder.device)
        return 1e3 * (time.perf_counter() - start)

    def localize_ms() -> tuple[float, Estimate]:
        start = time.perf_counter()
        estimate = localizer.localize(image, _CAMERA)
        return 1e3 * (time.perf_counter() - start), estimate

    for _ in range(_WARM_UP):
        encode_ms()
        localize_ms()
    alone: list[float] = []
    whole: list[tuple[float, Estimate]] = []
    for _ in range(rounds):
        alone.append(encode_ms())
        whole += [localize_ms(), localize_ms()]
        alone.append(encode_ms())
    stages = {
        stage: statistics.median(estimate.stage_ms[stage] for _, estimate in whole)
        for stage in ("prepare", "encode", "head", "solve")
    }
    total, encoder_ms = statistics.median(ms for ms, _ in whole), statistics.median(alone)
    return (
        {"rays": whole[0][1].rays}
        | stages
        | {"localize": total, "encoder alone": encoder_ms, "ratio": total / encoder_ms}
    )
