"""dimm_ros: one camera tells a robot where it is.

The core (geometry, encoder, head, solver, mapping, evaluation) needs no ROS; ``dimm_ros.ros`` is the node.
"""

from __future__ import annotations

import importlib
from pkgutil import extend_path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dimm_ros.geometry.camera import Camera
    from dimm_ros.localizer import Localizer

# A source checkout finds the generated ``dimm_ros.msg``, which colcon or CMake installs elsewhere on the path.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"

__all__ = ["Camera", "Localizer"]

_MODULES = {"Camera": "dimm_ros.geometry.camera", "Localizer": "dimm_ros.localizer"}


def __getattr__(name: str) -> type:
    """``from dimm_ros import Camera, Localizer``, loaded when they are asked for: torch takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module 'dimm_ros' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)
