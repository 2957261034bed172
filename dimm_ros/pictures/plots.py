"""What all plots share: matplotlib without a screen, and names of unknown origin in them."""

from __future__ import annotations

from pathlib import Path


def pyplot():
    """``matplotlib.pyplot``, drawing into files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def literal(name: str) -> str:
    """A name as matplotlib shows it as it is: a dollar would begin a formula, an underscore hides the name from a
    legend.
    """
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def save_figure(figure, path: Path) -> Path:
    """Write a figure as PNG and forget it."""
    figure.savefig(path, dpi=110)
    pyplot().close(figure)
    return path
