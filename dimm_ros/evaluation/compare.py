"""Several runs beside each other: absolute and relative trajectory errors by evo, one table and one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from evo.core import metrics, sync
from evo.core.filters import FilterException
from evo.core.units import Unit
from evo.tools import file_interface
from rich.markup import escape
from rich.table import Table

from dimm_ros.errors import DataError
from dimm_ros.evaluation.report import log_scale
from dimm_ros.pictures.plots import literal, pyplot, save_figure

_SAME_STAMP_S = 1e-3


@dataclass(frozen=True)
class EvaluationRun:
    """Figures and errors of an evaluation.

    Attributes:
        name: of its results folder.
        figures: its metrics.json, with ``ate_rmse_m`` and ``ate_rmse_deg`` (absolute, nothing is aligned: both are in
            the map's frame), ``rpe_rmse_m`` and ``rpe_rmse_deg`` (from one answered frame to the next); None where too
            few frames were answered.
        metres, degrees: errors of the answered frames.
    """

    name: str
    figures: dict
    metres: np.ndarray = field(default_factory=lambda: np.zeros(0))
    degrees: np.ndarray = field(default_factory=lambda: np.zeros(0))


def read_run(folder: Path) -> EvaluationRun:
    """Read a results folder of 'dimm eval' or 'dimm demo'.

    Raises:
        DataError: it is none, or its files are damaged.
    """
    try:
        figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        (folder / "true.tum").stat()  # evo says of a missing file that it is no CSV
        true = file_interface.read_tum_trajectory_file(folder / "true.tum")
        answered = bool((folder / "estimated.tum").read_text(encoding="utf-8").strip())
        estimated = file_interface.read_tum_trajectory_file(folder / "estimated.tum") if answered else None
        judged = {
            name: figures[name]
            for name in ("frames", "answered", "median_translation_m", "median_rotation_deg", "recall_10cm_5deg")
        }
    except OSError as error:
        which = f"{Path(error.filename or folder).name}: {error.strerror}"
        raise DataError(
            f"'{folder}' is no results folder of 'dimm eval' or 'dimm demo' ({which}); give one of results/."
        ) from None
    except (ValueError, KeyError, TypeError, file_interface.FileInterfaceException) as error:
        raise DataError(
            f"The results in '{folder}' are damaged ({str(error).splitlines()[0]}); run 'dimm eval' again."
        ) from None
    name, wanted = folder.resolve().name, ("ate_rmse_m", "ate_rmse_deg", "rpe_rmse_m", "rpe_rmse_deg")
    if estimated is None:
        return EvaluationRun(name, figures | judged | dict.fromkeys(wanted))
    pair = sync.associate_trajectories(true, estimated, max_diff=_SAME_STAMP_S)
    metres, degrees = (_errors(metrics.APE(part), pair) for part in _PARTS)
    steps = (
        [_errors(metrics.RPE(part, 1, Unit.frames), pair) for part in _PARTS] if len(metres) > 1 else [np.zeros(0)] * 2
    )
    rms = [None if not len(values) else float(np.sqrt(np.mean(values**2))) for values in (metres, degrees, *steps)]
    return EvaluationRun(name, figures | dict(zip(wanted, rms, strict=True)), metres, degrees)


_PARTS = (metrics.PoseRelation.translation_part, metrics.PoseRelation.rotation_angle_deg)


def _errors(metric: metrics.APE | metrics.RPE, pair: tuple) -> np.ndarray:
    try:
        metric.process_data(pair)
    except (metrics.MetricsException, FilterException):  # two frames or fewer
        return np.zeros(0)
    return np.asarray(metric.error)


def comparison_table(runs: Sequence[EvaluationRun]) -> Table:
    """A row a run."""
    result = Table(
        title="runs",
        title_justify="left",
        caption="ATE: root mean square of the absolute errors of answered frames, nothing aligned. "
        "RPE: the same from one answered frame to the next. Both by evo.",
        caption_justify="left",
    )
    result.add_column("run", overflow="fold")
    for heading in ("map on data", "answered", "median", "within 10 cm / 5 deg", "ATE", "RPE", "NEES"):
        result.add_column(heading, justify="right" if heading != "map on data" else "left")
    for run in runs:
        one = run.figures
        share, nees = one["recall_10cm_5deg"], one.get("nees_mean")
        result.add_row(
            escape(run.name),
            escape(f"{one.get('map', '?')} on {one.get('data', '?')}"),
            f"{one['answered']} of {one['frames']}",
            _pair(one["median_translation_m"], one["median_rotation_deg"]),
            "-" if share is None else f"{100 * share:.1f} %",
            _pair(one["ate_rmse_m"], one["ate_rmse_deg"]),
            _pair(one["rpe_rmse_m"], one["rpe_rmse_deg"]),
            "-" if nees is None else f"{nees:.1f}",
        )
    return result


def _pair(metres: float | None, degrees: float | None) -> str:
    return "-" if metres is None or degrees is None else f"{100 * metres:.1f} cm, {degrees:.2f} deg"


def draw_comparison(path: Path, runs: Sequence[EvaluationRun]) -> Path:
    """Share of all frames below each error, a line a run."""
    figure, axes = pyplot().subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, part, factor, label in (
        (axes[0], "metres", 100, "translation error [cm]"),
        (axes[1], "degrees", 1, "rotation error [deg]"),
    ):
        for run in runs:
            ordered = factor * np.sort(getattr(run, part))
            axis.step(
                ordered,
                100 * np.arange(1, len(ordered) + 1) / max(run.figures["frames"], 1),
                where="post",
                label=literal(run.name),
            )
        axis.set(xlabel=label, ylabel="frames [%], rejected ones included", ylim=(0, 101))
        log_scale(axis, "x", np.concatenate([getattr(run, part) for run in runs]))
        axis.grid(alpha=0.3, which="both")
    axes[0].legend(fontsize=8)
    return save_figure(figure, path)
