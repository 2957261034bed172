"""The pictures of docs/benchmarks_peers.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.peers.cost import IMAGES, RAYS
from benchmarks.peers.measure import PEERS
from benchmarks.peers.scenes import SCENES
from dimm_ros.config import PRESETS
from dimm_ros.mapping.fit import CALIBRATING

_COLOURS = dict(
    zip(PEERS, ("tab:red", "tab:blue", "tab:cyan", "0.4", "0.65", "tab:olive", "tab:green", "tab:purple"), strict=True)
)


def draw(figures: dict[str, dict], folder: Path) -> dict[str, str]:
    """Draw what there are figures for; file names with their titles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    scenes = [scene for scene in SCENES if any(f"{scene}/{peer}" in figures for peer in PEERS)]
    drawn = {}
    for name, title, draw_one, there in (
        ("peers_accuracy.png", "Median error against the map's size and the time of a query", _accuracy, scenes),
        ("peers_errors.png", "Share of queries within an error, per scene", _errors, scenes),
        (
            "peers_cost.png",
            "How the cost of mapping and of a query grows",
            _cost,
            [key for key in figures if key.startswith("cost/")],
        ),
    ):
        if there:
            figure = draw_one(pyplot, figures, scenes)
            figure.savefig(folder / name, dpi=90)
            pyplot.close(figure)
            drawn[name] = title
    return drawn


def mapping_seconds(figures: dict[str, dict]) -> list[float | None]:
    """The product's mapping time at each of ``IMAGES``: views at the measured rate, steps at the measured step time."""
    rates, most = [], PRESETS["cpu"].training.images  # of longer recordings key frames alone are encoded
    for scene in SCENES:
        row = figures.get(f"{scene}/dimm")
        if row is not None and row["mapping_peak_mb"] is not None:  # made in this benchmark, at its load
            stages, encoded = row["mapping_seconds"], min(row["mapped"], most)
            rates.append((stages["features"] + stages["landmarks"]) / encoded)
    steps = (1 + CALIBRATING) * PRESETS["cpu"].training.steps
    points = [figures.get(f"cost/training/{images}") for images in IMAGES]
    return [
        None
        if point is None or not rates
        else min(images, most) * float(np.median(rates)) + steps * point["step_seconds"]
        for images, point in zip(IMAGES, points, strict=True)
    ]


def _grid(pyplot, count: int, width: float, height: float):
    columns = min(4, count)
    rows = -(-count // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
    )
    for axis in axes.ravel()[count:]:
        axis.axis("off")
    return figure, axes.ravel()


def _accuracy(pyplot, figures: dict[str, dict], scenes: list[str]):
    figure, axes = _grid(pyplot, 2 * len(scenes[:4]), 3.6, 3.2)
    for number, scene in enumerate(scenes[:4]):
        for axis, value, label in (
            (axes[2 * number], lambda row, result: row["map_bytes"] / 1e6, "map [MB]"),
            (axes[2 * number + 1], lambda row, result: result["latency_ms"], "query [ms]"),
        ):
            for peer in PEERS:
                row = figures.get(f"{scene}/{peer}")
                result = next(iter(row["conditions"].values())) if row else None
                if result and result["median_translation_m"] is not None:
                    axis.plot(
                        value(row, result), 100 * result["median_translation_m"], "o", color=_COLOURS[peer], label=peer
                    )
            axis.set(xscale="log", yscale="log", xlabel=label, ylabel="median error [cm]", title=scene)
            axis.grid(alpha=0.3)
            for scale in (axis.xaxis, axis.yaxis):
                _plain(scale)
    _legend(figure, axes[0])
    return figure


def _plain(scale, at: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """1, 2, 5, 10, ... on a logarithmic axis, as numbers."""
    from matplotlib import ticker

    scale.set_major_locator(ticker.LogLocator(subs=at))
    scale.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    scale.set_minor_formatter(ticker.NullFormatter())


def _legend(figure, axis) -> None:
    """One legend for all panels, below them."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=len(PEERS), fontsize=8)


def _errors(pyplot, figures: dict[str, dict], scenes: list[str]):
    panels = [
        (scene, condition)
        for scene in scenes
        for condition in next(row["conditions"] for key, row in figures.items() if key.startswith(f"{scene}/"))
    ]
    figure, axes = _grid(pyplot, len(panels), 3.4, 2.8)
    for axis, (scene, condition) in zip(axes, panels, strict=False):
        for peer in PEERS:
            row = figures.get(f"{scene}/{peer}")
            if row:
                errors = row["conditions"][condition]["errors_m"]
                known = np.sort([100 * error for error in errors if error is not None])
                axis.step(
                    known,
                    100 * np.arange(1, len(known) + 1) / len(errors),
                    where="post",
                    color=_COLOURS[peer],
                    label=peer,
                    linewidth=1.2,
                )
        axis.set(xscale="log", xlim=(0.02, 300), ylim=(0, 101), xlabel="error [cm]", ylabel="queries [%]")
        axis.set_title(f"{scene} {condition}".replace("_", " "))
        axis.grid(alpha=0.3)
        _plain(axis.xaxis, (1.0,))
    _legend(figure, axes[0])
    return figure


def _cost(pyplot, figures: dict[str, dict], scenes: list[str]):
    figure, axes = _grid(pyplot, 4, 3.4, 3.1)
    mapping = mapping_seconds(figures)
    if any(mapping):
        worked_out = [np.nan if value is None else value / 60 for value in mapping]
        axes[0].plot(IMAGES, worked_out, "o-", color=_COLOURS["dimm"], label=None)
    for peer in PEERS:
        whole = [
            (row["mapped"], sum(row["mapping_seconds"].values()) / 60)
            for key, row in figures.items()
            if key.endswith(f"/{peer}")
        ]
        if whole:
            axes[0].plot(*zip(*whole, strict=True), "x", color=_COLOURS[peer], label=peer)
    axes[0].set(xlabel="images mapped", ylabel="mapping [min]", title="o worked out, x measured")
    training = [figures.get(f"cost/training/{images}") for images in IMAGES]
    axes[1].plot(*_known(training, "buffer_mb", "peak_mb"), "o-", color=_COLOURS["dimm"])
    axes[1].set(xlabel="feature buffer [MB]", ylabel="peak memory [MB]")
    sizes = {images: figures.get(f"cost/map_size/{images}") for images in IMAGES}
    axes[2].plot(
        list(sizes),
        [np.nan if point is None else point["ratio"] for point in sizes.values()],
        "o-",
        color=_COLOURS["dimm"],
    )
    axes[2].set(xlabel="images mapped", ylabel="query, x encoder", ylim=(0.9, None))
    rays = [figures.get(f"cost/rays/{most}") for most in RAYS]
    for name in ("localize", "encoder alone", "head", "solve"):
        axes[3].plot(*_known(rays, "rays", name), "o-", label=name)
    axes[3].set(xlabel="rays", ylabel="ms", yscale="log")
    axes[3].legend(fontsize=6)
    for axis in axes:
        axis.grid(alpha=0.3)
        if not any(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in axis.lines):
            axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center")
    _legend(figure, axes[0])
    return figure


def _known(points: list[dict | None], x: str, y: str) -> tuple[list[float], list[float]]:
    known = [point for point in points if point is not None]
    return [point[x] for point in known], [point[y] for point in known]
