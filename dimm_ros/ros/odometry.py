"""The robot's odometry in TF, where there is one."""

from __future__ import annotations

import numpy as np

from dimm_ros.errors import TransformError, TransformStampError
from dimm_ros.ros.tf import Transforms


class Odometry:
    """Looks up odom_from_body; waits for what is still to come, but not again and again for what is not there. For one
    thread.

    Args:
        transforms: TF.
        odom_frame: the odometry's frame.
        body_frame: the robot's frame.
        expected: whether there must be one, so that the first lookup waits.
    """

    def __init__(self, transforms: Transforms, odom_frame: str, body_frame: str, *, expected: bool) -> None:
        self._transforms, self._odom_frame, self.body_frame = transforms, odom_frame, body_frame
        self._wait = expected
        self._latest: tuple[int, np.ndarray | None] = (-1, None)

    def at(self, nanoseconds: int, timeout_s: float) -> np.ndarray | None:
        """(4, 4) odom_from_body at a time, None where odometry does not reach."""
        stamp, pose = self._latest
        if stamp != nanoseconds:
            pose = self._look_up(nanoseconds, timeout_s if self._wait else 0.0)
            self._latest = nanoseconds, pose
        return pose

    def _look_up(self, nanoseconds: int, timeout_s: float) -> np.ndarray | None:
        try:
            pose = self._transforms.lookup(self._odom_frame, self.body_frame, nanoseconds, timeout_s)
        except TransformStampError:
            self._wait = True  # it is there, a little late
            return None
        except TransformError:
            self._wait = False
            return None
        self._wait = True
        return pose
