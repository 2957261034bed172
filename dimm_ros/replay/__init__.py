"""A bag played into a localizer that runs in a process of its own, and the judge of what it answers."""

from dimm_ros.dependencies import need

need("pydantic", "2")  # Ubuntu 24.04 has 1.10
