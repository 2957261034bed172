"""Time of one pose solve for a small and a large grid of patches.

Rays of a random camera with noise (1 deg, 2 cm) and 30 % gross outliers, with confidence: what a head gives.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.report import Row
from dimm_ros.solver import solve_pose

NAME = "solver_speed"
TITLE = "one pose solve of noisy rays, 30 % of them outliers (ms)"

_REPEATS, _WARM_UP = 200, 20


def run(devices: Sequence[str]) -> list[Row]:
    """Median and 90th percentile of each grid on each device."""
    rows: list[Row] = []
    for device in devices:
        for rays in (768, 972):  # 448x336 and 504x378
            times = _times_ms(noisy_rays(rays, device))
            rows.append(
                {
                    "device": device,
                    "rays": rays,
                    "median": statistics.median(times),
                    "90th percentile": statistics.quantiles(times, n=10)[-1],
                }
            )
    return rows


def noisy_rays(count: int, device: str) -> dict[str, torch.Tensor]:
    """Arguments of solve_pose for one image."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    bearings = torch.nn.functional.normalize(normal(count, 3) * 0.4 + torch.tensor([0.0, 0.0, 1.0]), dim=1)
    rotation = torch.linalg.qr(normal(3, 3))[0]
    rotation = rotation * torch.linalg.det(rotation)
    directions = bearings @ rotation.T
    moments = torch.linalg.cross(normal(3).expand_as(directions), directions) + 0.02 * normal(count, 3)
    directions = directions + 0.017 * normal(count, 3)
    outliers = int(0.3 * count)
    directions[:outliers], moments[:outliers] = normal(outliers, 3), normal(outliers, 3)
    rays = {
        "camera_rays": bearings,
        "directions": directions,
        "moments": moments,
        "direction_sigma": 0.02 * normal(count).exp(),
        "moment_sigma": 0.03 * normal(count).exp(),
    }
    return {name: tensor.to(device) for name, tensor in rays.items()}


def _times_ms(arguments: dict[str, torch.Tensor]) -> list[float]:
    times = []
    for _ in range(_WARM_UP + _REPEATS):
        start = time.perf_counter()
        solution = solve_pose(**arguments)
        pose = solution.world_from_camera.cpu()  # waits for a GPU
        times.append(1e3 * (time.perf_counter() - start))
    if not (solution.ok and bool(torch.isfinite(pose).all())):
        raise RuntimeError(f"the benchmark's rays were not solved: {solution.reason}")
    return times[_WARM_UP:]
