"""How the cost grows."""
from __future__ import annotations


def run(root, store, end) -> None:
    pass
