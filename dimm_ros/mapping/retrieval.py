"""Reference views for the retrieval baseline: the CLS token and pose of each mapped image.

They stand in a file of their own beside the map: the robot needs only the map, the evaluation reads this file when it
is there.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from dimm_ros.data.recording import Recording
from dimm_ros.errors import UNREADABLE, first_line
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.scene_map import MapHeader, write_safetensors

log = logging.getLogger(__name__)

_KEY = "dimm_retrieval"


def reference_path(map_path: Path) -> Path:
    """The file beside a map: scene.dimm -> scene.dimm.retrieval.safetensors."""
    return map_path.with_name(map_path.name + ".retrieval.safetensors")


@dataclass(frozen=True)
class ReferenceViews:
    """CLS tokens and poses of mapped images.

    Attributes:
        cls: (V, W) float32.
        world_from_camera: (V, 4, 4) float64.
    """

    cls: np.ndarray
    world_from_camera: np.ndarray

    @classmethod
    def of(cls, views: TrainingViews, recording: Recording, cls_dim: int) -> ReferenceViews:
        """The recorded (not turned) views of a recording, whose context begins with the CLS token."""
        return cls(views.context[: len(recording.frames), :cls_dim].float().numpy(), recording.poses())

    def nearest(self, cls: np.ndarray) -> np.ndarray:
        """(4, 4) world_from_camera of the mapped image whose CLS token is most similar (cosine) to a (W,) token."""
        similarity = self.cls @ cls / np.linalg.norm(self.cls, axis=1)
        return self.world_from_camera[int(np.argmax(similarity))]

    def distance(self, world_from_camera: np.ndarray) -> tuple[float, float]:
        """How far a pose is from the nearest mapped camera centre: metres, and degrees between the two views."""
        distances, angles = pose_errors(self.world_from_camera, world_from_camera)
        nearest = int(np.argmin(distances))
        return float(distances[nearest]), float(angles[nearest])

    def save(self, map_path: Path, header: MapHeader) -> None:
        """Write the views beside the map that they are of, whole or not at all.

        Raises:
            MapError: the file cannot be written.
        """
        poses = torch.from_numpy(self.world_from_camera).contiguous()
        tensors = {"cls": torch.from_numpy(np.ascontiguousarray(self.cls)).half(), "world_from_camera": poses}
        write_safetensors(tensors, reference_path(map_path), {_KEY: json.dumps(header.mark())})

    @classmethod
    def load(cls, map_path: Path, header: MapHeader) -> ReferenceViews | None:
        """Read the views beside a map; None when there are none, or (with a warning) when they are of another map or
        cannot be read.
        """
        path = reference_path(map_path)
        if not path.is_file():
            return None
        try:
            with safe_open(str(path), "pt") as file:
                mark = json.loads((file.metadata() or {}).get(_KEY, "null"))
                tokens, poses = file.get_tensor("cls"), file.get_tensor("world_from_camera")
        except (OSError, SafetensorError, *UNREADABLE) as error:
            log.warning("%s cannot be read (%s), and is not used.", path.name, first_line(error))
            return None
        if mark != header.mark():
            log.warning("%s is of another map or another state of it, and is not used.", path.name)
            return None
        if tokens.ndim != 2 or poses.shape != (len(tokens), 4, 4) or not (len(tokens) and torch.isfinite(poses).all()):
            log.warning("%s does not hold a token and a pose for each view, and is not used.", path.name)
            return None
        return cls(tokens.float().numpy(), poses.double().numpy())
