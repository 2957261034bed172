"""Time of one pose solve on the CPU: ``python benchmarks/solver_speed.py [threads]``.

Rays of a random camera with noise (1 deg, 2 cm) and 30 % gross outliers, with confidence: what a head gives.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from dimm_ros.solver import solve_pose

REPEATS = 200


def noisy_rays(count: int) -> dict[str, torch.Tensor]:
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
    return {
        "camera_rays": bearings, "directions": directions, "moments": moments,
        "direction_sigma": 0.02 * normal(count).exp(), "moment_sigma": 0.03 * normal(count).exp(),
    }


def median_ms(count: int) -> float:
    """Median wall time of a solve in milliseconds."""
    arguments = noisy_rays(count)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        solution = solve_pose(**arguments)
        times.append(1e3 * (time.perf_counter() - start))
    assert solution.ok, solution.reason
    return statistics.median(times[REPEATS // 10 :])


torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
for rays in (768, 972):
    print(f"{rays} rays, {torch.get_num_threads()} thread(s): {median_ms(rays):.2f} ms per solve (median of {REPEATS})")
