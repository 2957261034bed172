"""The node: a thin shell around the core."""

from dimm_ros.dependencies import need

need("pydantic", "2")  # Ubuntu 24.04 has 1.10
