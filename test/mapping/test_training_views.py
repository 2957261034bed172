"""The views that a head learns from."""

from __future__ import annotations

import pytest
import torch

from dimm_ros.mapping.training_views import ROWS, VIEWS, TrainingViews

SIZES = (10, 2, 0, 5)


def views(sizes: tuple[int, ...] = SIZES, frame_of: tuple[int, ...] = (1, 0, 1, 0)) -> TrainingViews:
    rows, count = sum(sizes), len(sizes)
    return TrainingViews(
        patches=torch.arange(rows)[:, None].half(),
        camera_rays=torch.rand(rows, 3),
        directions=torch.rand(rows, 3),
        view_of=torch.repeat_interleave(torch.arange(count), torch.tensor(sizes)).int(),
        context=torch.rand(count, 4).half(),
        centres=torch.rand(count, 3).double(),
        rotations=torch.eye(3).double().repeat(count, 1, 1),
        frame_of=torch.tensor(frame_of, dtype=torch.int32),
    )


def test_rows_of_a_view_follow_one_another() -> None:
    some = views()
    assert (
        len(some) == 4
        and some.frames == 2
        and some.sizes.tolist() == list(SIZES)
        and some.first.tolist() == [0, 10, 12, 12]
    )
    assert [some.patches[some.rows(view), 0].tolist() for view in range(4)] == [
        list(range(10)),
        [10, 11],
        [],
        [12, 13, 14, 15, 16],
    ]


def test_which_views_are_recorded_and_which_are_whole() -> None:
    some = views()
    assert some.recorded.tolist() == [True, True, False, False]  # the first of each frame
    assert some.whole.tolist() == [True, False, False, True]  # three tenths of the largest


def test_thinned_views_keep_patches_of_their_own() -> None:
    thin = views().subsampled(4, torch.Generator().manual_seed(0))
    assert thin.sizes.tolist() == [4, 2, 0, 4] and thin.context.shape == (4, 4)
    for view, allowed in ((0, range(10)), (1, range(10, 12)), (3, range(12, 17))):
        kept = thin.patches[thin.rows(view), 0].tolist()
        assert set(kept) <= set(allowed) and kept == sorted(set(kept))


def test_views_of_a_map_before_come_last_and_count_as_whole() -> None:
    new, old = views(), views((3, 1), (0, 0))
    both = new.followed_by(old)
    assert len(both) == 6 and both.sizes.tolist() == [*SIZES, 3, 1] and both.frame_of.tolist() == [1, 0, 1, 0, 2, 2]
    assert both.recorded.tolist() == [True, True, False, False, True, False]
    assert both.whole.tolist() == [True, False, False, True, True, True]
    rows = torch.tensor([18, 0, 17, 16])
    for name in ROWS[:3]:
        expected = torch.cat([getattr(new, name), getattr(old, name)])[rows]
        assert torch.equal(getattr(both, name)[rows], expected)
    assert all(torch.equal(getattr(both, name)[4:], getattr(old, name)) for name in VIEWS[:3])


def test_fields_have_names() -> None:
    with pytest.raises(TypeError, match="positional"):
        TrainingViews(*(torch.zeros(1) for _ in range(8)))
