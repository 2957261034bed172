"""Fixtures that several rooms share: the real encoder, a small world and a small map of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads make a busy machine ten times slower

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job: the tests of Ctrl-C, and their processes, need it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings beside the checkout; tests that need them are skipped where they are not."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def encoder():
    """DINOv2 ViT-S/14 with the weights that 'dimm weights' finds, at a small input size, on the CPU."""
    from dimm_ros.config import EncoderConfig
    from dimm_ros.encoder.dinov2 import Encoder

    return Encoder.open(EncoderConfig(input_size=224), device="cpu")


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short walk through the gallery, recorded as a bag: 24 images of 224x168."""
    return _film(tmp_path_factory.mktemp("walk") / "walk", seed=1, seconds=4.6)


@pytest.fixture(scope="session")
def other_walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another walk through the same room: 10 images."""
    return _film(tmp_path_factory.mktemp("walk") / "other_walk", seed=2, seconds=1.8)


@pytest.fixture(scope="session")
def small_map(tmp_path_factory: pytest.TempPathFactory, walk: Path, encoder) -> Path:
    """A small map of the walk, of rays alone: it has learnt its own images, no more."""
    return _map(tmp_path_factory.mktemp("map") / "gallery.dimm", walk, encoder, "none")


@pytest.fixture(scope="session")
def landmark_map(tmp_path_factory: pytest.TempPathFactory, walk: Path, encoder) -> Path:
    """The small map with landmarks as points."""
    return _map(tmp_path_factory.mktemp("landmarks") / "gallery.dimm", walk, encoder, "points")


def _map(path: Path, walk: Path, encoder, kind: str) -> Path:
    from dimm_ros.config import HeadConfig, LandmarkConfig, TrainingConfig
    from dimm_ros.data.open import open_recording
    from dimm_ros.mapping.build import build_map

    training = TrainingConfig(steps=400, batch=512, passes=1, learning_rate=3e-3)
    build_map(
        open_recording(walk), path, encoder, head=HeadConfig(mappers=2, width=128, depth=1), training=training,
        landmarks=LandmarkConfig(kind=kind),
    )
    return path


def _film(path: Path, seed: int, seconds: float) -> Path:
    from dimm_ros.gallery.recorder import record_bag
    from dimm_ros.gallery.scene import build_room
    from dimm_ros.gallery.trajectory import MOUNTS, trajectory
    from dimm_ros.geometry.camera import Camera

    stamps, world_from_base = trajectory(seed, seconds, 20.0)
    camera = Camera(224, 168, 150.0, 150.0, 111.5, 83.5)
    return record_bag(path, build_room(0), camera, stamps, world_from_base, MOUNTS["handheld"], image_every=4, seed=seed)
