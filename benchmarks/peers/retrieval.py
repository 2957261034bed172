"""Retrieval: the pose of the mapped image whose CLS token is most similar, or the mean of the three most similar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.peers.peer import Mapped, PeerResult, Stages, encoded
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import make_pose
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.progress import ProgressCallback

NAME = "retrieval"
TITLE = "retrieval (pose of the most similar CLS token)"
NEEDS = ()
FEATURES = False  # of recorded images alone, which it encodes itself


@dataclass(frozen=True)
class RetrievalMap:
    """CLS tokens and poses; see ``peer.PeerMap``."""

    views: ReferenceViews
    encoder: Encoder
    top: int = 1

    @property
    def bytes(self) -> int:
        """As ``ReferenceViews.save`` writes them: tokens in half precision, poses in double."""
        return 2 * self.views.cls.size + self.views.world_from_camera.nbytes

    def localize(self, image: np.ndarray, camera: Camera) -> PeerResult:
        """It never gives up."""
        stages = Stages()
        tokens, _ = encoded(self.encoder, image, camera, stages)
        with stages("retrieve"):
            cls = tokens.cls[0].float().numpy()
            pose = self.views.nearest(cls) if self.top == 1 else mean_of_nearest(self.views, cls, self.top)
        return PeerResult(pose, stages.ms)


def mean_of_nearest(views: ReferenceViews, cls: np.ndarray, top: int) -> np.ndarray:
    """(4, 4) mean pose of the views with the most similar (W,) token, weighted by their cosine similarity."""
    similarity = views.cls @ cls / (np.linalg.norm(views.cls, axis=1) * np.linalg.norm(cls))
    chosen = np.argsort(-similarity)[:top]
    poses, weights = views.world_from_camera[chosen], np.maximum(similarity[chosen], 1e-6)
    return make_pose(
        Rotation.from_matrix(poses[:, :3, :3]).mean(weights).as_matrix(),
        np.average(poses[:, :3, 3], axis=0, weights=weights),
    )


def build(mapped: Mapped, progress: ProgressCallback) -> RetrievalMap:
    """Nothing is trained."""
    return RetrievalMap(ReferenceViews(mapped.cls(), mapped.recording.poses()), mapped.encoder)
