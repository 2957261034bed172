"""Tiny maps of nothing, for tests of what surrounds a map."""

from __future__ import annotations

import torch

from dimm_ros.config import EncoderConfig, HeadConfig, TrainingConfig
from dimm_ros.head.model import DimmHead
from dimm_ros.head.whole_image import WholeImage
from dimm_ros.scene_map import MapHeader, SceneMap, Source

PATCH, CONTEXT, VIEWS = 6, 8, 5


def tiny_header(**changes: object) -> MapHeader:
    """The header of a map that knows five views."""
    fields = {
        "name": "tiny", "frame_id": "map", "created": "2026-01-01T00:00:00+00:00", "dimm_version": "1.0.0", "encoder": EncoderConfig(),
        "encoder_sha256": "ab" * 32, "encoder_origin": "made up", "patch_dim": PATCH, "context_dim": CONTEXT,
        "head": HeadConfig(mappers=1, width=16, depth=1, turn_width=4), "training": TrainingConfig(), "origin": (1.0, 2.0, 3.0),
        "radius": 2.0, "sources": (Source(name="nothing", frames=VIEWS),),
    }
    return MapHeader(**fields | changes)


def tiny_map(**changes: object) -> SceneMap:
    """A map with random weights and that header."""
    torch.manual_seed(0)
    header = tiny_header(**changes)
    whole = WholeImage.fit(torch.randn(VIEWS, CONTEXT), torch.eye(3).expand(VIEWS, 3, 3), torch.randn(VIEWS, 3))
    return SceneMap(header, DimmHead(PATCH, CONTEXT, header.head, whole).eval().requires_grad_(False))
