"""DINOv2 through transformers, frozen: (B, 3, h, w) images to patch and CLS tokens."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from dimm_ros.config import EncoderConfig
from dimm_ros.encoder.patches import PATCH
from dimm_ros.encoder.weights import MODELS, Weights, find_weights
from dimm_ros.errors import InputError, WeightsError

log = logging.getLogger(__name__)

# transformers 5 renamed four modules of DINOv2; published files carry the names of transformers 4.
_RENAMED = {
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
}


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch of images.

    Attributes:
        patches: (B, P, D) patch tokens, row by row; D is the encoder's width times the number of stacked layers.
        context: (B, C) global context: the last layer's CLS token, then for each context layer the mean patch token of
            the image and of its parts (two by two of them, row by row, if ``context_grid`` is 2).
        cls: (B, W) the CLS token alone.
    """

    patches: Tensor
    context: Tensor
    cls: Tensor


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; "auto" is CUDA when present, else CPU.

    Raises:
        InputError: no such device on this computer.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"Device '{name}' is not known; choose auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"Device '{name}' is not here; choose cpu, or install a CUDA build of PyTorch.")
    return device


class Encoder:
    """A frozen DINOv2 with chosen weights.

    Attributes:
        config: which encoder, input size and layers.
        weights: the file, its digest and origin.
        model: the transformer itself.
        dim: width D of a patch token.
        cls_dim: width W of the CLS token.
        context_dim: width C of the context.
    """

    def __init__(self, config: EncoderConfig, weights: Weights, device: torch.device) -> None:
        self.config, self.weights, self.device = config, weights, device
        self._spec = MODELS[config.name]
        self._used = {*config.layers, *config.context_layers, self._spec.layers}  # the CLS token is the last layer's
        if not self._used <= set(range(1, self._spec.layers + 1)):
            raise WeightsError(
                f"{config.name} has layers 1 to {self._spec.layers}, the configuration asks for {sorted(self._used)}."
            )
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.model = _load(config.name, weights.path).to(device, self.dtype)
        self.dim = self._spec.dim * len(config.layers)
        self.cls_dim = self._spec.dim
        cells = 1 + (config.context_grid**2 if config.context_grid > 1 else 0)
        self.context_dim = self._spec.dim * (1 + cells * len(config.context_layers))

    @classmethod
    def open(
        cls,
        config: EncoderConfig,
        *,
        device: str = "auto",
        weights: str | Path | None = None,
        sha256: str | None = None,
    ) -> Encoder:
        """Find the weights (see ``find_weights`` for the order and the errors) and load them."""
        return cls(config, find_weights(config.name, path=weights, sha256=sha256), choose_device(device))

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tokens:
        """Tokens of (B, 3, h, w) float images normalised by ``patches.normalise``; h and w are multiples of 14."""
        if images.shape[-1] % PATCH or images.shape[-2] % PATCH:
            raise ValueError(f"encoder input {tuple(images.shape)} is not a multiple of {PATCH}")
        cells = _uploaded_cells(
            images.shape[-2] // PATCH, images.shape[-1] // PATCH, self.config.context_grid, self.device, self.dtype
        )
        return self.tokens(images.to(self.device, self.dtype), cells)

    def for_many(self) -> Encoder:
        """The encoder for the many images that a map is made of: in bfloat16 where the CPU multiplies matrices of it
        (Intel AMX), else itself.

        Its tokens differ by one per cent, which is little beside what views of one place differ by, and it takes less
        than half the time.
        """
        if self.device.type != "cpu" or self.dtype != torch.float32 or not _has_bfloat16_matrices():
            return self
        other = copy.copy(self)
        other.dtype, other.model = torch.bfloat16, copy.deepcopy(self.model).to(torch.bfloat16)
        return other

    def tokens(self, images: Tensor, cells: Tensor) -> Tokens:
        """As ``encode``, of images on the encoder's device and of its type, with the ``cell_weights`` of their size:
        what is exported.
        """
        model, config = self.model, self.config
        hidden = model.embeddings(images)
        first_patch = 1 + self._spec.registers
        patches, means = [], []
        for number, layer in enumerate(model.encoder.layer[: max(self._used)], start=1):
            hidden = layer(hidden)
            if isinstance(hidden, tuple):  # transformers 4 returns (hidden, attention)
                hidden = hidden[0]
            if number not in self._used:
                continue
            normed = model.layernorm(hidden)
            if number in config.layers:
                patches.append(normed[:, first_patch:])
            if number in config.context_layers:
                means.append((cells @ normed[:, first_patch:]).flatten(1))
        cls = normed[:, 0]
        return Tokens(torch.cat(patches, dim=-1), torch.cat([cls, *means], dim=-1), cls)


def cell_weights(rows: int, columns: int, grid: int) -> np.ndarray:
    """Weights of an image's rows * columns patches in their mean and, row by row, in the means of its grid x grid
    parts.

    Parts share the patches of a row or column that lies across their border.

    Returns:
        (1 + grid^2, rows * columns) float32, each row's sum one; (1, rows * columns) for a grid of one.
    """
    result = [np.full((rows, columns), 1.0)]
    if grid > 1:
        shares = (_shares(rows, grid), _shares(columns, grid))
        result += [np.outer(down, across) for down in shares[0] for across in shares[1]]
    return np.stack([(part / part.sum()).reshape(-1) for part in result]).astype(np.float32)


def _shares(count: int, parts: int) -> np.ndarray:
    """(parts, count) of 0 and 1: which of ``count`` belong to which part."""
    index, part = np.arange(count), np.arange(parts)[:, None]
    return ((index >= part * count // parts) & (index < -(-(part + 1) * count // parts))).astype(float)


def _has_bfloat16_matrices() -> bool:
    """Whether PyTorch sees a CPU with matrix units, where this version of it can tell."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


@lru_cache(maxsize=32)
def _uploaded_cells(rows: int, columns: int, grid: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(cell_weights(rows, columns, grid)).to(device, dtype)


def _load(name: str, path: Path) -> torch.nn.Module:
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    spec = MODELS[name]
    shape = dict(
        hidden_size=spec.dim,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        image_size=518,
        patch_size=PATCH,
    )
    if spec.registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=spec.registers, **shape))
    else:
        model = Dinov2Model(Dinov2Config(**shape))
    try:
        state = load_file(path)
    except Exception as error:
        raise WeightsError(
            f"The weight file {path.name} cannot be read as safetensors ({error}); fetch it again with 'dimm weights'."
        ) from error
    if any(".attention.q_proj." in key for key in model.state_dict()):
        for old, new in _RENAMED.items():
            state = {key.replace(old, new): value for key, value in state.items()}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items() if key != "embeddings.mask_token"}
    found = {key: tuple(value.shape) for key, value in state.items() if key != "embeddings.mask_token"}
    if found != expected:
        wrong = sum(found.get(key) != shape for key, shape in expected.items())
        raise WeightsError(
            f"The weight file {path.name} is not a {name}: {wrong} of {len(expected)} parameters are missing or of "
            "another shape; "
            f"give the model.safetensors of {spec.repository}."
        )
    model.load_state_dict(state, strict=False)  # published files may lack the mask token, which inference never uses
    return model.eval().requires_grad_(False)
