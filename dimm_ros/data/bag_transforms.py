"""The transforms of a bag: those of the robot that the images are of, and what is doubtful about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dimm_ros.data.bag_file import TF_TYPES, Bag, stamp_of
from dimm_ros.data.bag_run import BagStretch
from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import DataError, TransformError
from dimm_ros.geometry import poses

_SAME = 1e-6  # metres, and of a rotation matrix's entries: two recordings of one static transform
_LISTED = 3  # values named in a note


@dataclass
class BagTransforms:
    """A tree, and what its reader noticed.

    Attributes:
        tree: all links.
        notes: about transforms that were left out.
    """

    tree: TransformTree
    notes: list[str] = field(default_factory=list)
    _statics: dict[str, list[tuple[str, np.ndarray]]] = field(default_factory=dict)
    _rivals: dict[str, list[str]] = field(default_factory=dict)

    def doubts(self, target: str, source: str) -> list[str]:
        """Sentences about the links between two frames.

        Raises:
            DataError: several robots publish one of them, and nothing tells which is meant.
            TransformError: nothing links the two.
        """
        found = []
        for child in self.tree.chain(target, source):
            if child in self._rivals:
                raise DataError(
                    f"Frame '{child}' comes on {' and '.join(self._rivals[child])}, and the images are in neither's "
                    "namespace, so it is open which robot took them; keep one robot's topics ('ros2 bag convert'), or "
                    "name a pose topic."
                )
            values = self._statics.get(child, [])
            if len(values) > 1:
                listed = ", ".join(f"'{parent}' at {_point(pose)} m" for parent, pose in values[-_LISTED:])
                found.append(
                    f"The static transform of '{child}' was recorded with {len(values)} values ({listed}); the last "
                    "was taken: check that it is the camera's true place, or record again with one publisher."
                )
        return found


def transforms_of(
    bag: Bag, image_topic: str, rivals: dict[str, list[str]] | None = None
) -> Iterator[tuple[str, bool, int, object]]:
    """(topic, whether it is static, log time, TransformStamped) of the TFMessage topics named tf and tf_static.

    A frame that comes in several namespaces is taken from the one that is nearest to the images', as two robots in one
    bag need it. Where none is near, the first is, and ``rivals`` gets the frame and the topics.
    """
    owners: dict[str, str] = {}
    topics = [topic for topic, kind in bag.topics.items() if kind in TF_TYPES and _name(topic) in ("tf", "tf_static")]
    for topic in sorted(topics, key=lambda topic: (-_nearness(topic, image_topic), topic)):
        for log_ns, message in bag.logged_messages(bag.connections(topic)):
            for transform in message.transforms:
                child = transform.child_frame_id.lstrip("/")
                owner = owners.setdefault(child, topic)
                if _namespace(owner) == _namespace(topic):
                    yield topic, _name(topic) == "tf_static", log_ns, transform
                elif rivals is not None and not _nearness(owner, image_topic):
                    others = rivals.setdefault(child, [owner])
                    if topic not in others:
                        others.append(topic)


def read_transforms(bag: Bag, image_topic: str, max_gap_s: float, run: BagStretch) -> BagTransforms:
    """The tree of ``transforms_of``; transforms that cannot be used (NaN, no name, a loop) are left out and counted."""
    found = BagTransforms(TransformTree(max_gap_s=max_gap_s))
    bad: dict[str, list[str]] = {}
    for topic, static, log_ns, transform in transforms_of(bag, image_topic, found._rivals):
        stamp, child, pose = stamp_of(transform), transform.child_frame_id.lstrip("/"), matrix_of(transform)
        if not static and not run.holds(log_ns, stamp):
            continue
        try:
            found.tree.add(transform.header.frame_id, child, stamp, pose, static)
        except TransformError as error:
            bad.setdefault(topic, []).append(str(error))
            continue
        if static:
            _remember(found._statics.setdefault(child, []), transform.header.frame_id.lstrip("/"), pose)
    found.notes += [
        f"{len(causes)} transforms of {topic} cannot be used and were left out, the first: {causes[0]}"
        for topic, causes in bad.items()
    ]
    return found


def matrix_of(message) -> np.ndarray:
    """(4, 4) of a TransformStamped, PoseStamped, PoseWithCovarianceStamped or Odometry; NaN without a rotation."""
    if hasattr(message, "transform"):
        position, quaternion = message.transform.translation, message.transform.rotation
    else:
        pose = getattr(message.pose, "pose", message.pose)
        position, quaternion = pose.position, pose.orientation
    xyzw = np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w])
    if not np.isfinite(xyzw).all() or not xyzw.any():
        return np.full((4, 4), np.nan)  # the tree refuses it with a sentence that names the frames
    return poses.from_quaternion(np.array([position.x, position.y, position.z]), xyzw)


def _remember(values: list[tuple[str, np.ndarray]], parent: str, pose: np.ndarray) -> None:
    """Keep the different values of a static transform, the last one last."""
    values[:] = [
        (other, known) for other, known in values if other != parent or not np.allclose(known, pose, rtol=0, atol=_SAME)
    ]
    values.append((parent, pose))


def _point(pose: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in np.round(pose[:3, 3], 4)) + ")"


def _name(topic: str) -> str:
    return topic.rpartition("/")[2]


def _namespace(topic: str) -> str:
    return topic.rpartition("/")[0]


def _nearness(topic: str, image_topic: str) -> int:
    """How many levels of its namespace the images share; 0 where they are not in it."""
    namespace = _namespace(topic)
    return len(namespace.split("/")) if image_topic.startswith(f"{namespace}/") else 0
