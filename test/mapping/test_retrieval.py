"""The retrieval file beside a map: of that map, whole, or not used."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tiny_maps import tiny_header

from dimm_ros.mapping.retrieval import ReferenceViews, reference_path


@pytest.fixture()
def views(tmp_path: Path) -> tuple[Path, ReferenceViews]:
    rng = np.random.default_rng(0)
    path, made = (
        tmp_path / "map.dimm",
        ReferenceViews(rng.normal(size=(7, 4)).astype(np.float32), np.tile(np.eye(4), (7, 1, 1))),
    )
    made.world_from_camera[:, 0, 3] = np.arange(7) + 600_000.0
    made.save(path, tiny_header())
    return path, made


def test_views_come_back(views: tuple[Path, ReferenceViews]) -> None:
    path, made = views
    loaded = ReferenceViews.load(path, tiny_header())
    np.testing.assert_array_equal(loaded.world_from_camera, made.world_from_camera)
    np.testing.assert_allclose(loaded.cls, made.cls, rtol=1e-3)
    assert loaded.nearest(made.cls[3])[0, 3] == 600_003.0 and loaded.distance(made.world_from_camera[2])[0] == 0.0
    assert ReferenceViews.load(path.with_name("absent.dimm"), tiny_header()) is None


@pytest.mark.parametrize(
    "change", [{"created": "2026-01-01T00:00:01+00:00"}, {"name": "other"}, {"encoder_sha256": "cd" * 32}]
)
def test_views_of_another_map_are_not_used(
    views: tuple[Path, ReferenceViews], change: dict, caplog: pytest.LogCaptureFixture
) -> None:
    """A map that was built again under the same name, for instance, before a power cut kept its own views from the
    disk.
    """
    with caplog.at_level(logging.WARNING):
        assert ReferenceViews.load(views[0], tiny_header(**change)) is None
    assert "map.dimm.retrieval.safetensors is of another map or another state of it, and is not used." in caplog.text


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-20]), "cannot be read"),
        (lambda file: save_file(load_file(file), file), "is of another map"),
        (lambda file: _marked(file, "[" * 100_000), "cannot be read"),
        (lambda file: _marked(file, cls=np.zeros(7)), "does not hold a token and a pose for each view"),
        (lambda file: _marked(file, cls=np.zeros((6, 4))), "does not hold a token and a pose for each view"),
        (
            lambda file: _marked(file, world_from_camera=np.full((7, 4, 4), np.nan)),
            "does not hold a token and a pose for each view",
        ),
        (
            lambda file: _marked(file, cls=np.zeros((0, 4)), world_from_camera=np.zeros((0, 4, 4))),
            "does not hold a token and a pose",
        ),
    ],
)
def test_a_damaged_file_is_not_used(
    views: tuple[Path, ReferenceViews], spoil, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(reference_path(views[0]))
    with caplog.at_level(logging.WARNING):
        assert ReferenceViews.load(views[0], tiny_header()) is None
    assert words in caplog.text


def _marked(file: Path, mark: str | None = None, **changes: np.ndarray) -> None:
    """The file with another mark, or with other arrays and its own mark."""
    import torch
    from safetensors import safe_open

    with safe_open(str(file), "pt") as opened:
        metadata = opened.metadata() if mark is None else {"dimm_retrieval": mark}
    save_file(load_file(file) | {name: torch.from_numpy(value) for name, value in changes.items()}, file, metadata)
