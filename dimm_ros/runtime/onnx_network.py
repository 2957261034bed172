"""An exported network in ONNX Runtime: prepared images and camera rays in, world rays out, in place of encoder and
head.

ONNX files are data, but a graph may name other files and foreign operators: neither is accepted, and a network that was
not exported from the very map beside it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dimm_ros.encoder.dinov2 import Tokens, cell_weights
from dimm_ros.encoder.patches import PATCH, PatchGrid
from dimm_ros.encoder.weights import MODELS, Weights, file_sha256
from dimm_ros.errors import UNREADABLE, InputError, MapError, first_line
from dimm_ros.head.model import Rays
from dimm_ros.runtime.clock import Clock
from dimm_ros.runtime.network import NetworkOutput, on_device

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message
    from onnxruntime import InferenceSession

    from dimm_ros.scene_map import MapHeader

FORMAT_VERSION = 1
SUFFIX = ".onnx"
_KEY = "dimm_onnx"

#: Names of the graph's inputs and outputs. The last three outputs are there where the map's head has them.
INPUTS = ("pixels", "camera_rays", "cells")
OUTPUTS = ("patches", "context", "cls", "directions", "moments", "direction_scale", "moment_scale", "novelty")

#: Operators that ONNX Runtime itself brings.
_DOMAINS = {"", "ai.onnx", "com.microsoft"}

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


class Exported(BaseModel):
    """Metadata of an exported file: of which map it is, and how it computes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    dimm_version: str
    map_name: str
    map_sha256: str
    precision: Literal["fp32", "int8"]

    def write(self, model: onnx.ModelProto) -> None:
        """Into a model's metadata."""
        entry = model.metadata_props.add()
        entry.key, entry.value = _KEY, self.model_dump_json()


class OnnxNetwork:
    """See ``Network``: encoder and head of one map; ``encode`` is as an ``Encoder``'s, for who needs tokens alone.

    Attributes:
        config: the map's encoder configuration.
        weights: the exported file, with the digest of the weights that it was made from.
        device: where tokens and rays are put, torch's.
        cls_dim: width W of the CLS token.
        exported: what the file says of itself.
        provider: ONNX Runtime's execution provider in use.
    """

    def __init__(
        self, session: InferenceSession, exported: Exported, path: Path, header: MapHeader, device: torch.device
    ) -> None:
        self._session, self._header, self.device, self.exported = session, header, device, exported
        self.config, self.cls_dim = header.encoder, MODELS[header.encoder.name].dim
        self.weights = Weights(
            path, header.encoder_sha256, f"{header.encoder_origin}; exported to {path.name} ({exported.precision})"
        )
        self.provider = session.get_providers()[0]
        self._outputs = {output.name for output in session.get_outputs()}

    @classmethod
    def open(
        cls,
        path: str | Path,
        map_path: str | Path,
        header: MapHeader,
        device: torch.device,
        provider: Provider = "auto",
    ) -> OnnxNetwork:
        """Load a file that ``dimm export`` wrote.

        Args:
            path: the ONNX file.
            map_path: the map it must have been exported from, and ``header``, that map's.
            device: where tokens and rays are put.
            provider: what runs the graph; auto is CUDA where ``device`` and ONNX Runtime allow, else the CPU. TensorRT
                is never chosen by itself: it builds an engine for each image size first, which takes minutes.

        Raises:
            MapError: the file is missing, damaged, or of another map.
            InputError: ONNX Runtime is not installed, or has no such provider.
        """
        path, map_path = Path(path), Path(map_path)
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(
                "The back end 'onnx' needs ONNX Runtime: pip install onnxruntime (onnxruntime-gpu for CUDA and "
                "TensorRT), or take backend torch."
            ) from error
        if not path.is_file():
            raise MapError(
                f"The network {path} does not exist; write it with 'dimm export {map_path.name}', or take backend "
                "torch."
            )
        content = path.read_bytes()
        exported = _checked(content, path, map_path)
        providers = choose_providers(provider, device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # as OMP_WAIT_POLICY=PASSIVE: idle threads sleep
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # noqa: BLE001  ONNX Runtime's own kinds, one for each way to be damaged
            raise MapError(
                f"ONNX Runtime cannot load {path} ({first_line(error)}); write it again with 'dimm export "
                f"{map_path.name}'."
            ) from error
        if {put.name for put in session.get_inputs()} != set(INPUTS) or not set(OUTPUTS[:5]) <= {
            put.name for put in session.get_outputs()
        }:
            raise MapError(
                f"{path} does not have the inputs and outputs of an exported map; write it again with 'dimm export "
                f"{map_path.name}'."
            )
        return cls(session, exported, path, header, device)

    def encode(self, images: Tensor) -> Tokens:
        """As ``Encoder.encode``; float32."""
        count, rows, columns = len(images), images.shape[-2] // PATCH, images.shape[-1] // PATCH
        ahead = np.broadcast_to(np.array([0.0, 0.0, 1.0], dtype=np.float32), (count, rows * columns, 3))
        found = self._run(images, ahead, ("patches", "context", "cls"))
        return Tokens(found["patches"], found["context"], found["cls"])

    def predict(self, pixels: Tensor, grids: Sequence[PatchGrid]) -> NetworkOutput:
        """See ``Network.predict``; encoder and head are one graph, so all time is the encoder's."""
        clock = Clock(self.device)
        with clock("encode"):
            outputs = [name for name in OUTPUTS[1:] if name in self._outputs]
            found = self._run(pixels, np.stack([grid.rays for grid in grids]).astype(np.float32), outputs)
            rays = [self._rays(found, row).at(on_device(grid, self.device)[0]) for row, grid in enumerate(grids)]
        return NetworkOutput(found["context"], found["cls"], rays, clock.stages | {"head": 0.0})

    @staticmethod
    def _rays(found: dict[str, Tensor], row: int) -> Rays:
        """Those of all patches of one image of a batch."""
        names = ("directions", "moments", "direction_scale", "moment_scale")
        parts = {name: found[name][row] for name in names if name in found}
        return Rays(**parts, novelty=found["novelty"][row, None] if "novelty" in found else None)

    def _run(self, images: Tensor, camera_rays: np.ndarray, outputs: Sequence[str]) -> dict[str, Tensor]:
        cells = cell_weights(images.shape[-2] // PATCH, images.shape[-1] // PATCH, self.config.context_grid)
        feed = dict(zip(INPUTS, (images.float().cpu().numpy(), np.ascontiguousarray(camera_rays), cells), strict=True))
        return {
            name: torch.from_numpy(value).to(self.device)
            for name, value in zip(outputs, self._session.run(list(outputs), feed), strict=True)
        }


def network_path(map_path: str | Path) -> Path:
    """Where a map's exported network is looked for: beside it."""
    return Path(map_path).with_suffix(SUFFIX)


def choose_providers(
    name: str, device: torch.device, available: Sequence[str]
) -> list[str | tuple[str, dict[str, str]]]:
    """ONNX Runtime's providers for a choice, the best first; each falls back on the next for operators that it lacks.

    Raises:
        InputError: unknown, or not in this build of ONNX Runtime.
    """
    if name not in ("auto", *_PROVIDERS):
        raise InputError(f"The ONNX provider '{name}' is not known; choose auto, {', '.join(_PROVIDERS)}.")
    if name == "auto":
        name = "cuda" if device.type == "cuda" and _PROVIDERS["cuda"] in available else "cpu"
    if _PROVIDERS[name] not in available:
        raise InputError(
            f"This ONNX Runtime has no {name} provider; install onnxruntime-gpu in place of onnxruntime, or choose cpu."
        )
    chosen = list(_PROVIDERS)[list(_PROVIDERS).index(name) :: -1]
    number = {"device_id": str(device.index or 0)}
    return [
        _PROVIDERS[each] if each == "cpu" else (_PROVIDERS[each], number)
        for each in chosen
        if _PROVIDERS[each] in available
    ]


def _checked(content: bytes, path: Path, map_path: Path) -> Exported:
    """The file's metadata, if it is whole, keeps to itself, and is of the map."""
    import onnx
    from google.protobuf.message import DecodeError

    again = f"write it again with 'dimm export {map_path.name}'"
    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise MapError(f"{path} is damaged or not an ONNX file ({first_line(error)}); {again}.") from error
    text = next((entry.value for entry in model.metadata_props if entry.key == _KEY), None)
    if text is None:
        raise MapError(f"{path} was not written by 'dimm export'; {again}.")
    try:
        version = int(json.loads(text)["format_version"])
        if version != FORMAT_VERSION:
            raise MapError(f"{path} has format {version}, this dimm_ros reads {FORMAT_VERSION}; {again}.")
        exported = Exported.model_validate_json(text)
    except UNREADABLE as error:
        raise MapError(f"What {path} says of itself cannot be read ({first_line(error)}); {again}.") from error
    if exported.map_sha256 != file_sha256(map_path):
        raise MapError(f"{path.name} was exported from another map than {map_path.name} is now; {again}.")
    if any(_reaches_out(part) for part in _messages(model)):
        raise MapError(f"{path} refers to other files or to foreign operators, which no export does; {again}.")
    return exported


def _messages(message: Message) -> Iterator[Message]:
    """All parts of a protobuf message, wherever they are: constants, sparse or not, of the graph, of graphs in it, of
    functions.
    """
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else (value,):
                yield part
                yield from _messages(part)


def _reaches_out(part: Message) -> bool:
    """Whether a part of a model names another file, or operators that ONNX Runtime does not bring itself.

    A node that wraps a compiled engine is an operator of ONNX Runtime's own, but reads a file.
    """
    kind = part.DESCRIPTOR.name
    if kind == "TensorProto":
        return part.data_location == part.EXTERNAL or len(part.external_data) > 0
    if kind == "NodeProto" and part.op_type == "EPContext":
        return True
    return kind in ("NodeProto", "OperatorSetIdProto", "FunctionProto") and part.domain not in _DOMAINS
