"""The network in PyTorch: an encoder, which several maps may share, and the head of one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dimm_ros.encoder.dinov2 import Encoder, Tokens
from dimm_ros.encoder.patches import PatchGrid
from dimm_ros.head.merged import MergedHead
from dimm_ros.head.model import MapHead, Rays
from dimm_ros.runtime.clock import Clock
from dimm_ros.runtime.network import NetworkOutput, on_device


class TorchNetwork:
    """See ``Network``."""

    def __init__(self, encoder: Encoder, head: MapHead | MergedHead) -> None:
        self._encoder, self._head = encoder, head
        self.config, self.weights, self.device = encoder.config, encoder.weights, encoder.device

    def predict(self, pixels: Tensor, grids: Sequence[PatchGrid]) -> NetworkOutput:
        """See ``Network.predict``."""
        clock = Clock(self.device)
        with clock("encode"):
            tokens = self._encoder.encode(pixels)
        with clock("head"):
            rays = [predict_rays(self._head, tokens, grid, row) for row, grid in enumerate(grids)]
        return NetworkOutput(tokens.context, tokens.cls, rays, clock.stages)


@torch.inference_mode()
def predict_rays(head: MapHead | MergedHead, tokens: Tokens, grid: PatchGrid, row: int = 0) -> Rays:
    """World rays of one image's valid patches (that of a row of the batch), in the map's normalised frame."""
    valid, camera_rays, _ = on_device(grid, tokens.patches.device)
    return head(tokens.patches[row][valid].float(), tokens.context[row, None].float(), camera_rays)
