"""The transforms of a bag: those of the robot that the images are of, and what is doubtful about them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dimm_ros.data.bag_file import TF_TYPES, Bag, stamp_of
from dimm_ros.data.bag_run import Run
from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import DataError, TransformError
from dimm_ros.geometry import poses

_SAME = 1e-6  # metres, and of a rotation matrix's entries: two recordings of one static transform
_TOLD = 3  # values named in a note


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
                topics = " and ".join(self._rivals[child])
                raise DataError(
                    f"Frame '{child}' comes on {topics}, and the images are in neither's namespace, so it is open which robot took them; "
                    "keep one robot's topics ('ros2 bag convert'), or name a pose topic.",
                )
            values = self._statics.get(child, [])
            if len(values) > 1:
                told = ", ".join(f"'{parent}' at ({', '.join(f'{x:g}' for x in np.round(pose[:3, 3], 4))}) m" for parent, pose in values[-_TOLD:])
                found.append(
                    f"The static transform of '{child}' was recorded with {len(values)} values ({told}); the last was taken: check that it is the "
                    "camera's true place, or record again with one publisher.",
                )
        return found


def read_transforms(bag: Bag, image_topic: str, max_gap_s: float, run: Run) -> BagTransforms:
    """The tree of the TFMessage topics named tf and tf_static.

    A frame that comes in several namespaces is taken from the one that is nearest to the images', as two robots in one bag need it.
    A transform that cannot be used (NaN, no name, a frame linked to itself) is left out and counted.
    """
    found = BagTransforms(TransformTree(max_gap_s=max_gap_s))
    owners: dict[str, str] = {}
    topics = [topic for topic, kind in bag.topics.items() if kind in TF_TYPES and _name(topic) in ("tf", "tf_static")]
    for topic in sorted(topics, key=lambda topic: (-_nearness(topic, image_topic), topic)):
        static, bad, cause = _name(topic) == "tf_static", 0, ""
        for log_ns, message in bag.logged_messages(bag.connections(topic)):
            for transform in message.transforms:
                stamp, child = stamp_of(transform), transform.child_frame_id.lstrip("/")
                if not static and not run.holds(log_ns, stamp):
                    continue
                owner = owners.setdefault(child, topic)
                if _namespace(owner) != _namespace(topic):
                    if not _nearness(owner, image_topic) and topic not in found._rivals.setdefault(child, [owner]):
                        found._rivals[child].append(topic)
                    continue
                pose = matrix_of(transform)
                try:
                    found.tree.add(transform.header.frame_id, child, stamp, pose, static)
                except TransformError as error:
                    bad, cause = bad + 1, cause or str(error)
                    continue
                if static:
                    _remember(found._statics.setdefault(child, []), transform.header.frame_id.lstrip("/"), pose)
        if bad:
            found.notes.append(f"{bad} transforms of {topic} cannot be used and were left out, the first: {cause}")
    return found


def matrix_of(message) -> np.ndarray:
    """(4, 4) pose of a TransformStamped, PoseStamped, PoseWithCovarianceStamped or Odometry; NaN where it holds no rotation."""
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
    values[:] = [(other, known) for other, known in values if other != parent or not np.allclose(known, pose, rtol=0, atol=_SAME)]
    values.append((parent, pose))


def _name(topic: str) -> str:
    return topic.rpartition("/")[2]


def _namespace(topic: str) -> str:
    return topic.rpartition("/")[0]


def _nearness(topic: str, image_topic: str) -> int:
    """How many levels of its namespace the images share; 0 where they are not in it."""
    namespace = _namespace(topic)
    return len(namespace.split("/")) if image_topic.startswith(f"{namespace}/") else 0
