"""A map: the head's weights and a header, in one safetensors file. Data, never code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dimm_ros.config import EncoderConfig, HeadConfig, TrainingConfig
from dimm_ros.errors import MapError
from dimm_ros.head.model import DimmHead
from dimm_ros.head.whole_image import WholeImage

FORMAT_VERSION = 2
_KEY = "dimm_map"
_FULL = {"whole.weights", "whole.left", "whole.spread"}  # large numbers, some of which nearly cancel


class Source(BaseModel):
    """A recording that a map was trained from: a name and counts, never an image or a pose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    frames: int


class Calibration(BaseModel):
    """What held-out frames of the recording said about the map's own error estimates.

    Attributes:
        position_factor, rotation_factor: multiply the solver's standard deviations of an image of the reference novelty.
        position_growth, rotation_growth: exponents by which they grow with novelty.
        reference_novelty: median of the held-out views.
        max_novelty: images beyond it are not of this map; None when nothing is known about that.
        focal_factor: by which the map finds focal lengths of uncalibrated cameras too long, from mapped frames; see ``uncalibrated``.
        frames: held-out frames the others rest on; 0 when the recording was too short to hold any out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    position_factor: float = Field(1.0, gt=0)
    rotation_factor: float = Field(1.0, gt=0)
    position_growth: float = Field(0.0, ge=0)
    rotation_growth: float = Field(0.0, ge=0)
    reference_novelty: float = Field(1.0, gt=0)
    max_novelty: float | None = Field(None, gt=0)
    focal_factor: float = Field(1.0, gt=0)
    frames: int = 0

    def factors(self, novelty: float | None) -> tuple[float, float]:
        """Factors of the solver's standard deviations of position and rotation for an image of this novelty."""
        relative = 1.0 if novelty is None else novelty / self.reference_novelty
        return self.position_factor * relative**self.position_growth, self.rotation_factor * relative**self.rotation_growth


class MapHeader(BaseModel):
    """Everything about a map but its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    name: str
    frame_id: str
    created: str
    dimm_version: str
    encoder: EncoderConfig
    encoder_sha256: str
    encoder_origin: str
    patch_dim: int
    context_dim: int
    head: HeadConfig
    training: TrainingConfig
    origin: tuple[float, float, float] = Field(description="mean camera centre, metres, map frame")
    radius: float = Field(gt=0, description="unit of the normalised frame, metres")
    sources: tuple[Source, ...]
    calibration: Calibration = Calibration()
    figures: dict[str, float] = {}


class SceneMap:
    """A trained head with its header.

    Attributes:
        header: what the map is.
        head: the network, in evaluation mode.
    """

    def __init__(self, header: MapHeader, head: DimmHead) -> None:
        self.header, self.head = header, head

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> SceneMap:
        """Read a map file.

        Raises:
            MapError: missing, truncated, not a map, or written by a newer version.
        """
        path = Path(path)
        if not path.is_file():
            raise MapError(f"The map {path} does not exist; make one with 'dimm map BAG_OR_FOLDER -o {path.name}'.")
        try:
            with safe_open(str(path), "pt") as file:
                text = (file.metadata() or {}).get(_KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise MapError(f"The map {path} is damaged or not a map ({error}); copy it again or rebuild it with 'dimm map'.") from error
        if text is None:
            raise MapError(f"{path} is a safetensors file but not a dimm map (it has no map header); give the file that 'dimm map' wrote.")
        header = _parse(text, path)
        head = _empty_head(header, tensors)
        try:
            head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except RuntimeError as error:
            raise MapError(f"The map {path} does not hold the head that its header describes; rebuild it with 'dimm map'.") from error
        return cls(header, head.to(device).eval().requires_grad_(False))

    def save(self, path: str | Path) -> None:
        """Write the map whole or not at all; weights in half precision, as the paper's maps."""
        path = Path(path)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.head.state_dict().items()}
        tensors = {name: tensor if name in _FULL else tensor.half() for name, tensor in tensors.items()}
        write_safetensors(tensors, path, {_KEY: self.header.model_dump_json()})


def write_safetensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file through a temporary neighbour, so that a full disk or a crash leaves the old one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part{os.getpid()}")
        try:
            save_file(tensors, partial, metadata)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise MapError(f"{path} cannot be written ({error}); free space or choose another place with -o.") from error


def _empty_head(header: MapHeader, tensors: dict[str, torch.Tensor]) -> DimmHead:
    """A head of the header's shape, with a whole-image regression if the tensors hold one."""
    whole = None
    if "whole.views" in tensors and "whole.basis" in tensors:
        whole = WholeImage(header.context_dim, len(tensors["whole.views"]), tensors["whole.basis"].shape[-1])
    return DimmHead(header.patch_dim, header.context_dim, header.head, whole)


def _parse(text: str, path: Path) -> MapHeader:
    try:
        fields = json.loads(text)
        version = int(fields["format_version"])
        if version < FORMAT_VERSION:
            raise MapError(f"The map {path} has format {version}, of an early dimm_ros; this one reads {FORMAT_VERSION}: rebuild it with 'dimm map'.")
        if version > FORMAT_VERSION:
            raise MapError(f"The map {path} has format {version}, this dimm_ros reads up to {FORMAT_VERSION}; update dimm_ros.")
        return MapHeader.model_validate(fields)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise MapError(f"The header of map {path} cannot be read ({str(error).splitlines()[0]}); rebuild it with 'dimm map'.") from error
