"""One of the processes of test_distributed: makes a small map of a recording with the others."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dimm_ros.config import EncoderConfig, HeadConfig, LandmarkConfig, TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.mapping.build import BuildResult, build_map
from dimm_ros.mapping.distributed import joined_workers

TRAINING = TrainingConfig(steps=200, batch=512, passes=2, depth="none", learning_rate=3e-3, memory_mb=64)
HEAD = HeadConfig(mappers=2, width=64, depth=1, fusion="mean")  # has parameters without a gradient


def make(recording: Path, output: Path) -> BuildResult:
    """The map, by as many processes as there are."""
    encoder = Encoder.open(EncoderConfig(input_size=224), device="cpu")
    with joined_workers(torch.device("cpu")) as workers:
        return build_map(
            open_recording(recording),
            output,
            encoder,
            head=HEAD,
            training=TRAINING,
            landmarks=LandmarkConfig(kind="none"),
            workers=workers,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = make(Path(sys.argv[1]), Path(sys.argv[2]))
    assert made.complete
