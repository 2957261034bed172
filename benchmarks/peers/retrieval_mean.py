"""Retrieval with the mean pose of the three most similar images, weighted by similarity."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.peers import retrieval
from benchmarks.peers.peer import Mapped
from dimm_ros.progress import ProgressCallback

NAME = "retrieval_mean"
TITLE = "retrieval (mean of the three most similar, weighted)"
NEEDS = ()
FEATURES = False  # of recorded images alone, which it encodes itself


def build(mapped: Mapped, progress: ProgressCallback) -> retrieval.RetrievalMap:
    """As ``retrieval``."""
    return replace(retrieval.build(mapped, progress), top=3)
