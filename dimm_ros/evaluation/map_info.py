"""What a map is, as a dictionary for scripts and a table for people."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table
from safetensors import safe_open

from dimm_ros.config import PRESETS
from dimm_ros.mapping.rehearse import features_path
from dimm_ros.mapping.retrieval import reference_path
from dimm_ros.reach import Reach
from dimm_ros.runtime.onnx_network import network_path
from dimm_ros.scene_map import MapHeader, SceneMap

_NOT_SAID = "not said"
_SEED = {"seed"}  # a choice that is no departure from a preset


def map_info(path: str | Path) -> dict:
    """Everything that a map file says about itself; positions in metres, map frame.

    Raises:
        MapError: missing, damaged, or not a map.
    """
    path = Path(path)
    scene_map = SceneMap.load(path)
    header = scene_map.header
    calibration = header.calibration
    preset, changes = preset_of_map(header)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "name": header.name,
        "frame_id": header.frame_id,
        "format": header.format_version,
        "created": header.created,
        "dimm_version": header.dimm_version,
        "encoder": {
            "name": header.encoder.name,
            "input_size": header.encoder.input_size,
            "sha256": header.encoder_sha256,
            "weights": header.encoder_origin,
        },
        "preset": preset,
        "preset_changes": changes,
        "complete": header.complete,
        "steps": header.steps_done,
        "steps_wanted": None if header.parts else header.training.steps,
        "sources": [source.model_dump() for source in header.sources],
        "images": sum(source.frames for source in header.sources),
        "coverage": _coverage(header),
        "held_out": {
            "frames": calibration.frames,
            "median_position_m": calibration.position_error,
            "median_rotation_deg": calibration.rotation_error_deg,
        },
        "calibration": calibration.model_dump(),
        "landmarks": None if header.landmarks is None else header.landmarks.model_dump() | _warp(scene_map),
        "reach": {name: _reach(reach) for name, reach in reaches(header).items()},
        "alignments": [one.model_dump() for one in header.all_alignments],
        "parts": [part.name for part in header.parts],
        "bytes_per_part": bytes_per_part(path),
        "beside": {
            file.name: file.stat().st_size
            for file in (reference_path(path), features_path(path), network_path(path))
            if file.is_file()
        },
        "figures": header.figures,
    }


def reaches(header: MapHeader) -> dict[str, Reach]:
    """What is known of how far from the mapped views the map answers, by "landmarks" (without the rays' help) and by
    "rays alone"."""
    by_landmarks = None if header.landmarks is None else header.landmarks.calibration.reach
    known = {"landmarks": by_landmarks, "rays alone": header.calibration.reach}
    return {name: reach for name, reach in known.items() if reach is not None}


def _reach(reach: Reach) -> dict:
    metres, degrees = reach.furthest
    cells = [asdict(cell) for cell in reach.cells()]
    return {"frames": len(reach.distance), "furthest_m": metres, "furthest_deg": degrees, "cells": cells}


def preset_of_map(header: MapHeader) -> tuple[str, dict[str, object]]:
    """The preset that a map's settings are nearest to, and what differs from it, such as {"training.steps": 400}."""
    found = {name: _differences(header, preset) for name, preset in PRESETS.items()}
    name = min(found, key=lambda one: len(found[one]))
    return name, found[name]


def _differences(header: MapHeader, preset) -> dict[str, object]:
    result = {}
    landmarks = "none" if header.landmarks is None else header.landmarks.kind
    if landmarks != preset.landmarks.kind:
        result["landmarks.kind"] = landmarks
    for section in ("encoder", "head", "training"):
        ours, theirs = getattr(header, section), getattr(preset, section)
        for field in type(ours).model_fields:
            if field not in _SEED and getattr(ours, field) != getattr(theirs, field):
                result[f"{section}.{field}"] = getattr(ours, field)
    return result


def bytes_per_part(path: Path) -> dict[str, int]:
    """Bytes in a map file: the head or heads, what they know of the mapped views, landmarks, and the rest (header,
    names).
    """
    result = {"head": 0, "global pose": 0, "landmarks": 0}
    with safe_open(str(path), "pt") as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            part = "landmarks" if name.startswith("landmarks.") else "global pose" if "whole." in name else "head"
            result[part] += tensor.numel() * tensor.element_size()
    return result | {"header": path.stat().st_size - sum(result.values())}


def _coverage(header: MapHeader) -> dict | None:
    """Of all sources together; None where no source has any."""
    known = [source for source in header.sources if source.coverage is not None]
    if not known:
        return None
    low = np.min([source.coverage.low for source in known], axis=0)
    high = np.max([source.coverage.high for source in known], axis=0)
    frames = np.array([source.frames for source in known], float)
    return {
        "low": low.tolist(),
        "high": high.tolist(),
        "extent_m": (high - low).tolist(),
        "path_m": sum(source.coverage.path for source in known),
        "median_spacing_m": float(frames @ [source.coverage.spacing for source in known] / frames.sum()),
        "up": known[0].coverage.up,
        "headings": np.sum([source.coverage.headings for source in known], axis=0).tolist(),
    }


def table(info: dict) -> Table:
    """``map_info`` for people."""
    result = Table(title=escape(f"{info['name']} ({info['file']})"), show_header=False, title_justify="left")
    result.add_column(no_wrap=True)
    result.add_column(overflow="fold")
    for row in rows(info):
        result.add_row(*map(escape, row))
    return result


def _training(info: dict) -> list[tuple[str, str]]:
    """The map's own steps, and whether it is finished; nothing of a merged map."""
    if info["steps"] is None:
        return []
    if info["complete"]:
        return [("training", f"complete: {info['steps']} steps")]
    stopped = f"UNFINISHED: stopped at step {info['steps']} of {info['steps_wanted']}"
    return [("training", f"{stopped}; the 'dimm map' command that made it goes on from there")]


def _warp(scene_map: SceneMap) -> dict[str, float | None]:
    """Median errors of the recorded poses by the landmarks; None of maps of format 6 and before."""
    metres, degrees = (None, None) if scene_map.landmarks.warp is None else scene_map.landmarks.warp.sizes
    return {"warp_position_m": metres, "warp_rotation_deg": degrees}


def _landmarks(landmarks: dict | None) -> str:
    """Figures of the landmarks, of the recording's poses by them, and how well they locate frames that were left
    out.
    """
    if landmarks is None:
        return "none: rays alone"
    calibration = landmarks["calibration"]
    text = f"{landmarks['count']} {landmarks['kind']} of {landmarks['images']} images ({landmarks['detector']})"
    if landmarks["warp_position_m"] is not None:
        off = f"{100 * landmarks['warp_position_m']:.2f} cm, {landmarks['warp_rotation_deg']:.3f} deg"
        text += f"; by them recorded poses are off by {off} (medians), which answers allow for"
    if calibration["position_error"] is None:
        return f"{text}; too few frames were left out to judge them"
    return (
        f"{text}; {100 * calibration['position_error']:.2f} cm, {calibration['rotation_error_deg']:.3f} deg (medians "
        f"of {calibration['frames']} key frames that were left out)"
    )


def _reach_rows(reaches: dict) -> list[tuple[str, str]]:
    """A line for each distance from the nearest mapped view, with what was found by the turn from it."""
    if not reaches:
        return [("reach", "not measured: the recording is short, or the map was made by an earlier dimm_ros")]
    result = []
    for name, reach in reaches.items():
        result.append(
            (
                "reach",
                f"by {name}, of {reach['frames']} held-out frames; none was further than "
                f"{_length(reach['furthest_m'])} or turned by more than {reach['furthest_deg']:.0f} deg from the "
                "nearest mapped view, and nothing is known beyond:",
            )
        )
        for distance, cells in groupby(reach["cells"], key=lambda cell: cell["distance"]):
            result.append((f"  {_range(distance)}", "; ".join(map(_cell, cells))))
    return result


def _cell(cell: dict) -> str:
    """Such as "5-10 deg: 0.8 cm, 0.21 deg, 11 of 12 answered"."""
    low, high = cell["turn"]
    found = ""
    if cell["position_error"] is not None:
        found = f"{100 * cell['position_error']:.1f} cm, {cell['rotation_error_deg']:.2f} deg, "
    return f"{low:.0f}-{high:.0f} deg: {found}{cell['answered']} of {cell['frames']} answered"


def _length(metres: float) -> str:
    return f"{metres:.3g} m" if metres >= 1 else f"{100 * metres:.2g} cm"


def _range(distance: tuple[float, float]) -> str:
    """Such as "5-10 cm"."""
    low, high = distance
    if high == float("inf"):
        return f"over {low:g} m"
    return f"{100 * low:g}-{100 * high:g} cm" if high <= 1 else f"{low:g}-{high:g} m"


def rows(info: dict) -> list[tuple[str, str]]:
    """Labels and texts."""
    encoder, held_out, coverage = info["encoder"], info["held_out"], info["coverage"]
    result = []
    for source in info["sources"]:
        recorded = source["recorded"]
        date = "" if recorded is None else f", recorded {' to '.join(dict.fromkeys(recorded))}"
        mapped = "" if source["mapped"] is None else f", mapped {source['mapped']}"
        result.append(
            (
                "source",
                f"{source['name']}: {source['frames']} images{date}{mapped}; licence: {source['licence'] or _NOT_SAID}",
            )
        )
    result += [
        (
            "encoder",
            f"{encoder['name']}, input {encoder['input_size']}, weights {encoder['weights']} (SHA-256 "
            f"{encoder['sha256'][:12]}...)",
        ),
        (
            "preset",
            ", ".join([info["preset"], *(f"{name} = {value}" for name, value in info["preset_changes"].items())]),
        ),
        *_training(info),
        ("frame", info["frame_id"]),
    ]
    result += [
        (
            "aligned",
            f"'{one['target']}' of {one['reference']} from '{one['source']}', by {one['method']}, "
            f"{100 * one['residual']:.1f} cm (root mean square), {one['aligned']}",
        )
        for one in info["alignments"]
    ]
    if coverage is None:
        result.append(("coverage", "not in the map: it was made by an earlier dimm_ros"))
    else:
        size = " x ".join(f"{value:.1f}" for value in coverage["extent_m"])
        looks = sum(count > 0 for count in coverage["headings"])
        result.append(
            (
                "coverage",
                f"{size} m, path {coverage['path_m']:.1f} m, a view each {100 * coverage['median_spacing_m']:.0f} cm, "
                "looking into "
                f"{looks} of {len(coverage['headings'])} directions ({coverage['up']} is up)",
            )
        )
    if held_out["median_position_m"] is None:
        why = (
            "no frames were held out: the recording is short"
            if not held_out["frames"]
            else "not in the map: it was made by an earlier dimm_ros"
        )
        result.append(("rays alone", why))
    else:
        result.append(
            (
                "rays alone",
                f"{100 * held_out['median_position_m']:.1f} cm, {held_out['median_rotation_deg']:.2f} deg (medians of "
                f"{held_out['frames']} frames in stretches that were held out)",
            )
        )
    result.append(("landmarks", _landmarks(info["landmarks"])))
    result += _reach_rows(info["reach"])
    if info["parts"]:
        result.append(("merged from", ", ".join(info["parts"])))
    parts = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in info["bytes_per_part"].items())
    result.append(("size", f"{info['bytes'] / 1e6:.2f} MB: {parts}"))
    result += [("beside it", f"{name} ({size / 1e6:.2f} MB)") for name, size in info["beside"].items()]
    result.append(("made", f"{info['created']} by dimm_ros {info['dimm_version']}, format {info['format']}"))
    return result
