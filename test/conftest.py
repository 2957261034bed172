"""Fixtures that several rooms share: the real encoder, a small world and a small map of it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

WORKER = os.environ.get("PYTEST_XDIST_WORKER")  # of pytest-xdist: gw0, gw1, ...

os.environ.setdefault("OMP_NUM_THREADS", "1" if WORKER else "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads make a busy machine ten times slower

if (
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):  # as in a shell's background job: the tests of Ctrl-C, and their processes, need it
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
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """``made_once(name, make)`` gives the folder that ``make(folder)`` has filled, in this process or in another
    worker.

    What is in it is every test's: they only read it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if WORKER else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        place, done = shared / "made_once" / name, shared / "made_once" / f"{name}.done"
        place.parent.mkdir(exist_ok=True)
        with place.with_name(f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
            if not done.exists():
                shutil.rmtree(place, ignore_errors=True)  # of a worker that failed
                place.mkdir()
                make(place)
                done.touch()
        return place

    return folder


@pytest.fixture(scope="session")
def walk(made_once) -> Path:
    """A short walk through the gallery, recorded as a bag: 24 images of 224x168."""
    return made_once("walk", lambda folder: _film(folder / "walk", seed=1, seconds=4.6)) / "walk"


@pytest.fixture(scope="session")
def other_walk(made_once) -> Path:
    """Another walk through the same room: 10 images."""
    return made_once("other_walk", lambda folder: _film(folder / "other_walk", seed=2, seconds=1.8)) / "other_walk"


@pytest.fixture(scope="session")
def small_map(made_once, walk: Path, encoder) -> Path:
    """A small map of the walk, of rays alone: it has learnt its own images, no more."""
    from dimm_ros.config import HeadConfig, LandmarkConfig, TrainingConfig
    from dimm_ros.data.open import open_recording
    from dimm_ros.mapping.build import build_map

    training = TrainingConfig(steps=400, batch=512, passes=1, learning_rate=3e-3)

    def make(folder: Path) -> None:
        build_map(
            open_recording(walk),
            folder / "gallery.dimm",
            encoder,
            head=HeadConfig(mappers=2, width=128, depth=1),
            training=training,
            landmarks=LandmarkConfig(kind="none"),
        )

    return made_once("small_map", make) / "gallery.dimm"


@pytest.fixture(scope="session")
def landmark_map(made_once, walk: Path, small_map: Path) -> Path:
    """The small map with landmarks as points, as a build that makes both has it: they do not touch the rays."""
    import numpy as np

    from dimm_ros.config import LandmarkConfig
    from dimm_ros.data.open import open_recording
    from dimm_ros.landmarks.build import build_landmarks
    from dimm_ros.mapping.landmarks import landmark_header
    from dimm_ros.mapping.retrieval import reference_path
    from dimm_ros.scene_map import SceneMap

    def make(folder: Path) -> None:
        rays, config, path = SceneMap.load(small_map), LandmarkConfig(kind="points"), folder / "gallery.dimm"
        built = build_landmarks(open_recording(walk).frames, np.array(rays.header.origin), config)
        header = rays.header.model_copy(update={"landmarks": landmark_header(built, config)})
        SceneMap(header, rays.head, built.landmarks).save(path)
        shutil.copy(reference_path(small_map), reference_path(path))

    return made_once("landmark_map", make) / "gallery.dimm"


@pytest.fixture(scope="session")
def other_map(made_once, other_walk: Path, encoder) -> Path:
    """A map of the other walk, with another origin and unit and another head than the small map's, and landmarks."""
    from dimm_ros.config import HeadConfig, TrainingConfig
    from dimm_ros.data.open import open_recording
    from dimm_ros.mapping.build import build_map

    training = TrainingConfig(steps=250, batch=512, passes=1, learning_rate=3e-3)

    def make(folder: Path) -> None:
        build_map(
            open_recording(other_walk),
            folder / "second.dimm",
            encoder,
            head=HeadConfig(mappers=1, width=96, depth=1),
            training=training,
            licence="CC0-1.0",
        )

    return made_once("other_map", make) / "second.dimm"


def _film(path: Path, seed: int, seconds: float) -> Path:
    from dimm_ros.gallery.recorder import record_bag
    from dimm_ros.gallery.scene import build_room
    from dimm_ros.gallery.trajectory import MOUNTS, trajectory
    from dimm_ros.geometry.camera import Camera

    stamps, world_from_base = trajectory(seed, seconds, 20.0)
    camera = Camera(224, 168, 150.0, 150.0, 111.5, 83.5)
    return record_bag(
        path, build_room(0), camera, stamps, world_from_base, MOUNTS["handheld"], image_every=4, seed=seed
    )
