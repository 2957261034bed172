"""EuRoC MAV (Burri et al., IJRR 2016), its left camera: a folder with ``mav0/``.

``mav0/cam0/data.csv`` has ``timestamp [ns],file``, the images lie in ``cam0/data/``. ``cam0/sensor.yaml`` has ``T_BS``
(4x4, body_from_sensor), ``resolution``, ``intrinsics`` (fu fv cu cv), ``distortion_model`` and
``distortion_coefficients``. ``mav0/state_groundtruth_estimate0/data.csv`` has ``timestamp [ns],p_RS_R xyz,q_RS
wxyz,...``: world_from_sensor of the sensor whose own sensor.yaml gives its T_BS. Poses are interpolated; images before
and after them are left out. Source: "The EuRoC micro aerial vehicle datasets", section on the ASL data format, at ETH
Zurich.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from dimm_ros.data.folder import (
    FolderFrames,
    Trajectory,
    from_wxyz,
    listed_file,
    one_per_stamp,
    parsing,
    read_text,
    require,
    rigid,
    text_rows,
)
from dimm_ros.data.recording import Recording
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

LAYOUT = "EuRoC"

_CAMERA, _TRUTH = "cam0", "state_groundtruth_estimate0"
_MAX_GAP_S = 0.1  # the estimate runs at 200 Hz
_MODELS = {
    "radial-tangential": "plumb_bob",
    "radtan": "plumb_bob",
    "plumb_bob": "plumb_bob",
    "equidistant": "equidistant",
}


def is_euroc(folder: Path) -> bool:
    """Whether a folder looks like a EuRoC sequence, or is its mav0."""
    return (folder / "mav0").is_dir() or (folder / _CAMERA / "data.csv").is_file()


def read_euroc(folder: str | Path) -> Recording:
    """Read the left camera of a EuRoC sequence.

    Raises:
        DataError: a file is missing or malformed, or no image lies within the true poses.
    """
    folder = Path(folder)
    root = folder / "mav0" if (folder / "mav0").is_dir() else folder
    require(root, LAYOUT, f"{_CAMERA}/data.csv", f"{_CAMERA}/sensor.yaml", f"{_TRUTH}/data.csv")
    with parsing(root / _CAMERA / "sensor.yaml", LAYOUT):
        sensor = _sensor(root / _CAMERA / "sensor.yaml")
        camera = _camera(sensor)
        body_from_camera = _body_from_sensor(sensor)
    sensor_from_body = np.eye(4)
    if (path := root / _TRUTH / "sensor.yaml").exists():
        with parsing(path, LAYOUT):
            sensor_from_body = poses.invert(_body_from_sensor(_sensor(path)))
    with parsing(root / _TRUTH / "data.csv", LAYOUT):
        truth = [
            (int(row[0]), from_wxyz([float(value) for value in row[4:8]], [float(value) for value in row[1:4]]))
            for row in text_rows(root / _TRUTH / "data.csv", ",")
        ]
        truth, notes = one_per_stamp([(stamp, pose) for stamp, pose in truth if pose is not None], "poses")
    trajectory = Trajectory([stamp for stamp, _ in truth], [pose for _, pose in truth], _MAX_GAP_S)
    frames = FolderFrames(folder, LAYOUT, timed=True)
    with parsing(root / _CAMERA / "data.csv", LAYOUT):
        for stamp, name, *_ in text_rows(root / _CAMERA / "data.csv", ","):
            pose = trajectory.at(int(stamp))
            pose = None if pose is None else pose @ sensor_from_body @ body_from_camera
            frames.add(name, listed_file(root / _CAMERA / "data", name), camera, pose, int(stamp))
    return frames.recording(notes)


def _sensor(path: Path) -> dict:
    """A sensor.yaml; OpenCV's heading "%YAML:1.0" is not YAML."""
    return yaml.safe_load("\n".join(line for line in read_text(path).splitlines() if not line.startswith("%")))


def _body_from_sensor(sensor: dict) -> np.ndarray:
    pose = rigid(np.array(sensor["T_BS"]["data"], dtype=np.float64).reshape(4, 4))
    if pose is None:
        raise ValueError("T_BS is not a rigid transform")
    return pose


def _camera(sensor: dict) -> Camera:
    width, height = (int(value) for value in sensor["resolution"])
    distortion = tuple(float(value) for value in sensor.get("distortion_coefficients") or ())
    model = _MODELS[sensor.get("distortion_model", "plumb_bob")]
    return Camera(width, height, *(float(value) for value in sensor["intrinsics"]), model, distortion)
