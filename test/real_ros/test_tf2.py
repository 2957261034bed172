"""tf2_ros itself, as the node uses it, beside our own tree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")

from dimm_ros.data.transform_tree import TransformTree  # noqa: E402
from dimm_ros.errors import TransformError, TransformStampError  # noqa: E402
from dimm_ros.geometry.poses import make_pose  # noqa: E402
from dimm_ros.replay.session import LocalSession  # noqa: E402
from dimm_ros.ros.messages import to_transform  # noqa: E402
from dimm_ros.ros.tf import Tf2Transforms, make_transforms  # noqa: E402

SECOND = 10**9


@pytest.fixture
def session() -> Iterator[LocalSession]:
    with LocalSession() as opened:
        yield opened


@pytest.fixture
def transforms(session: LocalSession) -> Iterator[Tf2Transforms]:
    made = make_transforms(session.node)
    assert isinstance(made, Tf2Transforms)
    yield made
    made.destroy()


def keep(transforms: Tf2Transforms, parent: str, child: str, stamp: int, pose: np.ndarray) -> None:
    """As if it had come on /tf."""
    transforms._keep(to_transform(parent, child, stamp, pose), static=False)


def test_activations_leave_no_service(session: LocalSession) -> None:
    """With the node, tf2_ros's buffer would make ``tf2_frames`` each time, which outlives it."""
    before = sorted(service.srv_name for service in session.node.services)
    for _ in range(5):
        make_transforms(session.node).destroy()
    assert sorted(service.srv_name for service in session.node.services) == before


def test_a_leading_slash_does_not_matter(transforms: Tf2Transforms) -> None:
    keep(transforms, "/odom", "/base_link", SECOND, np.eye(4))
    for target, source in (("/odom", "base_link"), ("odom", "/base_link")):
        np.testing.assert_allclose(transforms.lookup(target, source, SECOND, 0.0), np.eye(4), atol=1e-12)


def test_two_trees_are_not_said_to_be_linked(transforms: Tf2Transforms) -> None:
    keep(transforms, "odom", "base_link", SECOND, np.eye(4))
    keep(transforms, "rig", "camera", SECOND, np.eye(4))
    for stamp in (SECOND, 5 * SECOND):
        with pytest.raises(TransformError, match="TF does not link 'base_link' to 'camera'") as caught:
            transforms.lookup("base_link", "camera", stamp, 0.0)
        assert not isinstance(caught.value, TransformStampError)
    with pytest.raises(TransformStampError, match="but not at the image's time"):
        transforms.lookup("odom", "base_link", 5 * SECOND, 0.0)


def test_random_trees_are_as_ours(transforms: Tf2Transforms) -> None:
    """Each frame below one of those before it, two samples a second apart, looked up in between."""
    rng = np.random.default_rng(0)
    for number in range(50):
        ours, count = TransformTree(), int(rng.integers(3, 9))
        for child in range(1, count):
            names = f"tree{number}_{rng.integers(child)}", f"tree{number}_{child}"
            for stamp in (SECOND, 2 * SECOND):
                pose = make_pose(Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3))
                ours.add(*names, stamp, pose)
                keep(transforms, *names, stamp, pose)
        target, source = (f"tree{number}_{frame}" for frame in rng.choice(count, 2, replace=False))
        stamp = int(rng.integers(SECOND, 2 * SECOND))
        found = transforms.lookup(target, source, stamp, 0.0)
        np.testing.assert_allclose(found, ours.lookup(target, source, stamp), atol=1e-9)
