"""How new several images are together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_maps import MadeUpWalk, localizer_of, tiny_map


@pytest.mark.parametrize(
    ("novelties", "together"),
    [
        ((0.1, 0.3, 0.9), 0.3),
        ((0.9, 0.1, 0.8), 0.8),
        ((0.2, 0.4), 0.3),
        ((0.1, 0.1, 5.0), 0.1),
        ((None, None), None),
        ((None, 0.4, 0.6), 0.5),
    ],
)
def test_it_is_the_median_that_counts(novelties: tuple[float | None, ...], together: float | None) -> None:
    """One familiar image does not vouch for others that are of elsewhere, nor does one that is blocked spoil the
    rest.
    """
    localizer, walk = localizer_of(tiny_map(encoder=MadeUpWalk.ENCODER)), MadeUpWalk(1)
    observed = walk.observation(localizer.map, 0)
    several = [
        replace(observed, rays=replace(observed.rays, novelty=None if novelty is None else torch.tensor([novelty])))
        for novelty in novelties
    ]
    estimate = localizer.solve_window(several, [np.eye(4)] * len(several), newest=len(several))
    assert estimate.novelty == (together if together is None else pytest.approx(together))
    deviations = np.sqrt(np.diag(estimate.covariance)[:3])
    assert (
        deviations >= 0.99 * localizer.map.header.calibration.sigmas(together)[0]
    ).all()  # views of one place know no more than one
