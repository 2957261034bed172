"""A room painted without photographs, so that these tests need no scikit-image."""

from __future__ import annotations

import pytest

from dimm_ros.gallery.scene import Scene, build_room


@pytest.fixture(scope="session")
def room() -> Scene:
    return build_room(seed=3, photographs=False)
