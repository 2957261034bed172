"""``python -m benchmarks.precision data``: what each way to run the encoder on a CPU gains in time and costs in
accuracy.

Each row localizes the same left-out images of red kitchen in the ablation's stored maps, and each image is localized by
the row and by the default (PyTorch, fp32, sdpa) in turn, so that both see the same machine. Every row goes to
results/precision/figures.json as soon as it is there, and is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.report import Row, machine, put_json, table  # noqa: E402
from dimm_ros.cli.console import console  # noqa: E402
from dimm_ros.data.open import open_recording  # noqa: E402
from dimm_ros.data.recording import Frame  # noqa: E402
from dimm_ros.encoder.dinov2 import Encoder  # noqa: E402
from dimm_ros.encoder.patches import fit, normalise, patch_grid  # noqa: E402
from dimm_ros.geometry.poses import pose_errors  # noqa: E402
from dimm_ros.localizer import Localizer  # noqa: E402
from dimm_ros.runtime.export import export_map  # noqa: E402
from dimm_ros.runtime.onnx_network import network_path  # noqa: E402
from dimm_ros.scene_map import SceneMap  # noqa: E402

MAPS = Path("results") / "ablation" / "maps"
ROOT = Path("results") / "precision"
SPLITS = ("near", "mid")
_BATCHES = (1, 2, 4)


def map_of(split: str) -> Path:
    """The ablation's map with the encoder that it was in effect trained with: its features were stored with more
    layers.
    """
    path = ROOT / f"{split}.dimm"
    if not path.is_file():
        scene_map = SceneMap.load(MAPS / f"{split}_0.dimm")
        config = scene_map.header.encoder.changed(layers=(12,))
        weights = Encoder.open(config, device="cpu").weights
        changes = {"encoder": config, "encoder_sha256": weights.sha256, "encoder_origin": weights.origin}
        SceneMap(scene_map.header.model_copy(update=changes), scene_map.head, scene_map.landmarks).save(path)
    return path


def torch_localizer(
    path: Path, change: Callable[[Encoder], None] = lambda _: None, input_size: int | None = None
) -> Localizer:
    """PyTorch's, with a changed encoder."""
    scene_map = SceneMap.load(path)
    config = scene_map.header.encoder.changed(input_size=input_size)
    scene_map.header = scene_map.header.model_copy(update={"encoder": config})
    encoder = Encoder.open(config, device="cpu")
    change(encoder)
    return Localizer(scene_map, encoder)


def _eager(encoder: Encoder) -> None:
    encoder.model.config._attn_implementation = "eager"


def _bfloat16(encoder: Encoder) -> None:
    encoder.model, encoder.dtype = encoder.model.bfloat16(), torch.bfloat16


def _dynamic_int8(encoder: Encoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the function's age
        encoder.model = torch.ao.quantization.quantize_dynamic(encoder.model, {torch.nn.Linear}, dtype=torch.qint8)


def onnx_localizer(path: Path, precision: str) -> Localizer:
    """ONNX Runtime's, from a copy of the map for each precision."""
    copy = path.with_name(f"{path.stem}_{precision}.dimm")
    if not network_path(copy).is_file():
        copy.write_bytes(path.read_bytes())
        export_map(copy, precision=precision)
    return Localizer.open(copy, device="cpu", backend="onnx")


ROWS: dict[str, Callable[[Path], Localizer]] = {
    "torch, eager attention": lambda path: torch_localizer(path, _eager),
    "torch, bf16": lambda path: torch_localizer(path, _bfloat16),
    "torch, int8 dynamic": lambda path: torch_localizer(path, _dynamic_int8),
    "onnx, fp32": lambda path: onnx_localizer(path, "fp32"),
    "onnx, int8": lambda path: onnx_localizer(path, "int8"),
    "torch, input 392 (map of 448)": lambda path: torch_localizer(path, input_size=392),
    "torch, input 336 (map of 448)": lambda path: torch_localizer(path, input_size=336),
}


def compare(name: str, split: str, frames: list[Frame]) -> Row:
    """A row against the default on frames."""
    path = map_of(split)
    default, other = torch_localizer(path), ROWS[name](path)
    for localizer in (default, other):
        localizer.warm_up(frames[0].camera)
    times: list[tuple[float, float]] = []
    errors: list[tuple[list[float], list[float]]] = []
    accepted = [0, 0]
    for frame in frames:
        image = frame.load()
        pair = [localizer.localize(image, frame.camera) for localizer in (default, other)]
        times.append(tuple(each.stage_ms["encode"] + each.stage_ms["head"] for each in pair))
        errors.append(tuple(pose_errors(each.world_from_camera, frame.world_from_camera) for each in pair))
        accepted = [count + each.accepted for count, each in zip(accepted, pair, strict=True)]
    metres, degrees = np.array(errors).transpose(2, 1, 0)  # each (default or row, image)
    ms = np.array(times).T
    return {
        "row": name,
        "split": split,
        "images": len(frames),
        "default, ms": float(np.median(ms[0])),
        "ms": float(np.median(ms[1])),
        "time ratio": float(np.median(ms[1] / ms[0])),
        "default, cm": 100 * float(np.median(metres[0])),
        "cm": 100 * float(np.median(metres[1])),
        "default, deg": float(np.median(degrees[0])),
        "deg": float(np.median(degrees[1])),
        "accepted": f"{accepted[1]} ({accepted[0]})",
    }


def batches(frames: list[Frame]) -> Row:
    """Milliseconds for each image of a batch, as several cameras on one base would make."""
    encoder = Encoder.open(SceneMap.load(map_of("near")).header.encoder, device="cpu")
    grid = patch_grid(frames[0].camera, encoder.config.input_size)
    pixels = [torch.from_numpy(normalise(fit(frame.load(), frame.camera, grid))) for frame in frames[: max(_BATCHES)]]
    encoder.encode(pixels[0][None])
    times: dict[int, list[float]] = {size: [] for size in _BATCHES}
    for _ in range(5):
        for size in _BATCHES:
            batch = torch.stack(pixels[:size])
            begun = time.perf_counter()
            encoder.encode(batch)
            times[size].append(1e3 * (time.perf_counter() - begun) / size)
    return {"row": "torch, fp32"} | {
        f"{size} images, ms each": statistics.median(values) for size, values in times.items()
    }


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder of the shared data sets")
    parser.add_argument("--images", type=int, default=40, help="of each split, evenly chosen")
    parser.add_argument(
        "--rows",
        nargs="*",
        choices=[*ROWS, "batches"],
        default=[*ROWS, "batches"],
        help="what to measure, if it is missing",
    )
    parser.add_argument("--splits", nargs="*", choices=SPLITS, default=SPLITS, help="which left-out images")
    given = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    store = ROOT / "figures.json"
    figures: dict[str, Row] = json.loads(store.read_text()) if store.is_file() else {}

    def keep(key: str, row: Row) -> None:
        figures[key] = row | {"machine": machine(["cpu"])}
        put_json(figures, store)

    for split in given.splits:
        frames = open_recording(given.data / "redkitchen", split=f"{split}:val").frames
        frames = [
            frames[index]
            for index in np.linspace(0, len(frames) - 1, min(given.images, len(frames))).round().astype(int)
        ]
        for name in ROWS:
            key = f"{name}/{split}/{len(frames)}"
            if key not in figures and name in given.rows:
                keep(key, compare(name, split, frames))
                console.print(key, markup=False)
        if "batches" not in figures and "batches" in given.rows:
            keep("batches", batches(frames))
    shown = [
        {name: value for name, value in row.items() if name != "machine"}
        for key, row in figures.items()
        if key.endswith(f"/{given.images}")
    ]
    if shown:
        console.print(table("each way to run the encoder against the default, image by image", shown))
    if "batches" in figures:
        console.print(
            table(
                "several images at once",
                [{name: value for name, value in figures["batches"].items() if name != "machine"}],
            )
        )


if __name__ == "__main__":
    main()
