"""``export_map``: encoder and head of a map as one ONNX graph, everything between prepared images and world rays."""

from __future__ import annotations

import inspect
import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dimm_ros import __version__
from dimm_ros.encoder.dinov2 import Encoder, cell_weights
from dimm_ros.encoder.patches import PATCH
from dimm_ros.encoder.weights import file_sha256
from dimm_ros.errors import InputError, MapError
from dimm_ros.runtime.onnx_network import INPUTS, OUTPUTS, SUFFIX, Exported, network_path
from dimm_ros.scene_map import SceneMap
from dimm_ros.whole_file import written_whole

if TYPE_CHECKING:
    import onnx

#: Every version of ONNX Runtime of the last years reads it, and TensorRT.
_OPSET = 17
_SAMPLE = (2, 12, 16)  # images, rows and columns of patches that are traced; all three may differ later

PRECISIONS = ("fp32", "int8")


class _Network(nn.Module):
    """The module that is traced."""

    def __init__(self, encoder: Encoder, scene_map: SceneMap) -> None:
        super().__init__()
        # its parameters are found by the second
        self.encoder, self.transformer, self.head = (encoder, encoder.model, scene_map.head)

    def forward(self, pixels: Tensor, camera_rays: Tensor, cells: Tensor) -> tuple[Tensor, ...]:
        tokens = self.encoder.tokens(pixels, cells)
        rays = self.head(tokens.patches.flatten(0, 1), tokens.context, camera_rays.flatten(0, 1))
        each = [rays.directions, rays.moments, rays.direction_scale, rays.moment_scale]
        each = [None if part is None else part.unflatten(0, (pixels.shape[0], -1)) for part in each]
        return tuple(
            part for part in (tokens.patches, tokens.context, tokens.cls, *each, rays.novelty) if part is not None
        )


def export_map(
    map_path: str | Path,
    output: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    precision: str = "fp32",
) -> Path:
    """Write a map's network as an ONNX file, whole or not at all.

    Inputs are ``pixels`` (images, 3, height, width), prepared as ``encoder.patches`` does, ``camera_rays`` (images,
    patches, 3) and ``cells``, the ``cell_weights`` of the size; any number of images and any size. Outputs are named in
    ``onnx_network.OUTPUTS``.

    Args:
        map_path: the map; the file is only good for this very one, whose digest it holds.
        output: a file, or a folder for one of the map's name; None is beside the map, where the back end looks for it.
        weights: of the encoder; None finds them as ``Localizer.open``.
        precision: "fp32", or "int8" for matrix products of the encoder with 8-bit weights and activations (see
            docs/benchmarks_speed.md).

    Raises:
        MapError: the map cannot be read, or the file cannot be written.
        WeightsError: the encoder's weights are not found.
        InputError: unknown precision, or what it needs is not installed.
    """
    if precision not in PRECISIONS:
        raise InputError(f"The precision '{precision}' is not known; choose {' or '.join(PRECISIONS)}.")
    map_path = Path(map_path)
    scene_map = SceneMap.load(map_path)
    header = scene_map.header
    if header.parts:
        raise MapError(
            f"Map '{header.name}' was merged from {len(header.parts)}, and a network cannot choose between them; "
            "export each alone."
        )
    encoder = Encoder.open(header.encoder, device="cpu", weights=weights, sha256=header.encoder_sha256)
    model = _graph(encoder, scene_map)
    if precision == "int8":
        model = _quantised(model)
    Exported(
        dimm_version=__version__, map_name=header.name, map_sha256=file_sha256(map_path), precision=precision
    ).write(model)
    target = network_path(map_path) if output is None else Path(output)
    if target.is_dir() or (output is not None and target.suffix != SUFFIX):
        target = target / network_path(map_path.name)
    _write(model.SerializeToString(), target)
    return target


def _graph(encoder: Encoder, scene_map: SceneMap) -> onnx.ModelProto:
    import onnx

    images, rows, columns = _SAMPLE
    head = scene_map.head.config
    missing = set() if head.confidence else {"direction_scale", "moment_scale"}
    missing |= set() if scene_map.head.whole is not None else {"novelty"}
    names = [name for name in OUTPUTS if name not in missing]
    rays = nn.functional.normalize(torch.rand(images, rows * columns, 3) + 0.1, dim=-1)
    cells = torch.from_numpy(cell_weights(rows, columns, encoder.config.context_grid))
    axes = {
        "pixels": {0: "images", 2: "height", 3: "width"},
        "camera_rays": {0: "images", 1: "patches"},
        "cells": {1: "patches"},
    }
    per_patch = {"patches", "directions", "moments", "direction_scale", "moment_scale"}
    axes |= {name: {0: "images"} | ({1: "patches"} if name in per_patch else {}) for name in names}
    # The exporter that traces: it needs no further package, and is there in every version of torch that we support.
    how = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # on shapes that are fixed while tracing, and on the exporter's age
        torch.onnx.export(
            _Network(encoder, scene_map).eval(),
            (torch.rand(images, 3, rows * PATCH, columns * PATCH), rays, cells),
            buffer,
            input_names=list(INPUTS),
            output_names=names,
            dynamic_axes=axes,
            opset_version=_OPSET,
            **how,
        )
    return onnx.load_from_string(buffer.getvalue())


def _quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The encoder's products with 8-bit weights, one scale for each output channel; activations are scaled as they
    come.
    """
    import onnx

    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise InputError("Precision int8 needs ONNX Runtime: pip install onnxruntime.") from error
    kept = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name.startswith("/head/")]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        logging.disable(logging.WARNING)  # its advice is for who quantises by hand
        try:
            quantize_dynamic(
                model,
                target,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=kept,
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(target)


def _write(content: bytes, target: Path) -> None:
    try:
        with written_whole(target) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise MapError(
            f"{target} cannot be written ({error.strerror}); free space or choose another place with -o."
        ) from error
