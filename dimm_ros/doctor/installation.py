"""What the localizer needs of this computer: Python packages and the map file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dimm_ros.data.bridge import bridge
from dimm_ros.doctor.findings import Finding, ok, problem, warning
from dimm_ros.errors import MapError


def check_python(environment: dict[str, str]) -> list[Finding]:
    """Python packages: what the localizer needs, and whether cv_bridge works.

    Args:
        environment: names of the middleware ("rmw") and the domain ("domain").
    """
    result = []
    missing = [name for name in ("torch", "cv2", "safetensors", "pydantic") if find_spec(name) is None]
    if missing:
        result.append(
            problem(
                "Python",
                f"{', '.join(missing)} cannot be imported",
                "a virtual environment that is not active, or packages not installed",
                "pip install them for the Python that ROS runs (see README.md)",
            )
        )
    known = bridge()
    said = "no cv_bridge, none needed"
    if known.trouble:
        result.append(
            warning(
                "Python",
                known.trouble,
                "it was built for another NumPy, or one of its libraries is missing",
                "nothing is needed for the localizer; for other nodes install the NumPy that it was built for "
                "('numpy<2')",
            )
        )
    elif known.installed:
        said = f"cv_bridge works, for {len(known.converts)} encodings"
    if not result:
        result.append(
            ok("Python", f"NumPy {np.__version__}, {said}; {environment['rmw']}, domain {environment['domain']}")
        )
    return result


def check_map(path: Path | None) -> list[Finding]:
    """Whether the map can be opened; nothing without a path."""
    if path is None:
        return []
    from dimm_ros.scene_map import SceneMap

    try:
        header = SceneMap.load(path).header
    except MapError as error:
        return [
            problem(
                "map",
                str(error),
                "a path that is relative to another folder, or a file that was cut off",
                "give the absolute path",
            )
        ]
    return [
        ok(
            "map",
            f"'{header.name}' in frame {header.frame_id}, of {', '.join(source.name for source in header.sources)}",
        )
    ]
