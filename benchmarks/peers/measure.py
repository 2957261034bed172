"""One row: a peer makes its map of a scene and localizes the scene's queries, in a process of its own."""

from __future__ import annotations

import importlib
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np

from benchmarks.peers.features import prepare
from benchmarks.peers.peer import Mapped, PeerMap, PeerResult
from benchmarks.peers.scenes import SCENES, BenchmarkScene, spread
from benchmarks.report import machine
from dimm_ros.config import PRESETS
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.evaluation.metrics import FrameResult, errors, summarise
from dimm_ros.mapping.build import MIN_FRAMES
from dimm_ros.progress import ProgressCallback, StepCallback

#: Peers by name, those of this package first.
PEERS = (
    "dimm",
    "sift",
    "lightglue",
    "retrieval",
    "retrieval_mean",
    "pose_regression",
    "scene_coordinates",
    "scene_coordinates_context",
)

_QUICK_SIZE = 224  # of the encoder's input


def peer_of(name: str) -> ModuleType:
    """The module of a peer: NAME, TITLE, NEEDS and build(mapped, progress)."""
    return importlib.import_module(f"benchmarks.peers.{name}")


def missing(name: str) -> list[str]:
    """Packages that a peer needs and that are not installed."""
    return [package for package in peer_of(name).NEEDS if find_spec(package) is None]


def measure(
    scene_name: str,
    peer_name: str,
    data: Path,
    root: Path,
    progress: ProgressCallback,
    *,
    steps: int | None = None,
    quick: bool = False,
) -> dict:
    """Figures of a row.

    Args:
        data: folder of the shared data sets.
        root: where features and maps are kept.
        steps: of trainings; the preset's by default.
        quick: a handful of images, so that it takes a moment; its figures mean nothing.
    """
    scene = SCENES[scene_name](data, root)
    if quick:
        few = {name: spread(part, 3) for name, part in scene.queries.items()}
        scene = replace(scene, mapped=spread(scene.mapped, MIN_FRAMES), queries=few, ablation_split="")
    encoder = Encoder.open(PRESETS["cpu"].encoder.changed(input_size=_QUICK_SIZE if quick else None), device="cpu")
    return row(scene, peer_name, encoder, root / (f"quick_{scene.name}" if quick else scene.name), progress, steps)


def row(
    scene: BenchmarkScene,
    peer_name: str,
    encoder: Encoder,
    folder: Path,
    progress: ProgressCallback,
    steps: int | None = None,
) -> dict:
    """Make the map, ask all queries; "features" in place of a peer completes the scene's feature buffer alone."""
    if peer_name == "features":
        prepare(scene, encoder, folder, progress)
        return {}
    peer = peer_of(peer_name)
    most_mapped, most_asked = getattr(peer, "MAPPED", len(scene.mapped.frames)), getattr(peer, "QUERIES", None)
    if getattr(peer, "FEATURES", True):
        prepare(scene, encoder, folder, progress)
    recording, shared = (
        spread(scene.mapped, most_mapped),
        folder.parent / (scene.name.partition("_")[0] if scene.ablation_split else scene.name),
    )
    split = scene.ablation_split if steps is None else ""
    mapped = Mapped(recording, scene.mapped, encoder, folder, shared, steps or PRESETS["cpu"].training.steps, split)
    start = time.perf_counter()
    peer_map = peer.build(mapped, progress)
    built = time.perf_counter() - start
    mapping_mb = peak_mb()
    figures = {
        "scene": scene.name,
        "peer": peer_name,
        "note": scene.note,
        "mapped": len(recording.frames),
        "map_bytes": peer_map.bytes,
        "mapping_seconds": {stage: round(value, 2) for stage, value in mapped.seconds.items()},
        "build_seconds": round(built, 1),
        "mapping_peak_mb": mapping_mb if peer_name != "dimm" or built >= sum(mapped.seconds.values()) else None,
        "conditions": {},
    }
    for condition, queries in scene.queries.items():
        queried = queries if most_asked is None else spread(queries, max(1, most_asked // len(scene.queries)))
        figures["conditions"][condition] = _ask(
            peer_map, queried, lambda done, total: progress("localizing", done, total)
        )
    return figures | {"peak_mb": peak_mb(), "machine": machine(["cpu"]), "encoder": encoder.weights.origin}


def _ask(peer_map: PeerMap, queries: Recording, progress: StepCallback) -> dict:
    """Accuracy and times."""
    first = queries.frames[0]
    peer_map.localize(first.load(), first.camera)  # the first is slow for reasons of its own
    located: list[PeerResult] = []
    totals = []
    for done, frame in enumerate(queries.frames, start=1):
        image = frame.load()
        start = time.perf_counter()
        located.append(peer_map.localize(image, frame.camera))
        totals.append(1e3 * (time.perf_counter() - start))
        progress(done, len(queries.frames))
    answers = [
        FrameResult(f.name, f.stamp_ns, f.world_from_camera, each.pose)
        for f, each in zip(queries.frames, located, strict=True)
    ]
    translation, rotation = errors(answers)
    summary = summarise(answers)
    kept = (
        "frames",
        "answered",
        "median_translation_m",
        "median_rotation_deg",
        "p90_translation_m",
        "p90_rotation_deg",
        "recall_5cm_5deg",
        "recall_10cm_5deg",
        "recall_25cm_2deg",
    )
    latency = statistics.median(totals)
    stages = {stage: [each.stage_ms[stage] for each in located] for stage in located[0].stage_ms}
    # Every peer runs the encoder in every query: a busier moment of the machine is in both parts of the query's own
    # ratio.
    ratios = {stage: _median_ratio(times, stages["encode"]) for stage, times in stages.items()}
    return {name: summary[name] for name in kept} | {
        "failure_rate": 1 - summary["answered"] / summary["frames"],
        "latency_ms": latency,
        "queries_per_second": 1e3 / latency,
        "stage_ms": {stage: statistics.median(times) for stage, times in stages.items()},
        "stage_ratio": ratios,
        "ratio": _median_ratio(totals, stages["encode"]),
        "errors_m": _finite(translation),
        "errors_deg": _finite(rotation),
    }


def _median_ratio(times: Sequence[float], encode: Sequence[float]) -> float:
    return statistics.median(time / own for time, own in zip(times, encode, strict=True))


def _finite(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
