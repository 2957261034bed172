"""dimm_ros: one camera tells a robot where it is.

The core (geometry, encoder, head, solver, mapping, evaluation) needs no ROS; ``dimm_ros.ros`` is the node.
"""

from pkgutil import extend_path

# A source checkout finds the generated ``dimm_ros.msg``, which colcon or CMake installs elsewhere on the path.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
