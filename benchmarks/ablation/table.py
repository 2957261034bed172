"""The tables of docs/benchmarks.md from the stored figures: medians over seeds."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from benchmarks.ablation import rows

_SPLITS = ("near", "mid", "far")


def print_tables(figures: dict[str, dict], console: Console) -> None:
    """Print all rows that have figures as Markdown."""
    lines = [
        "",
        "| split | seeds | median error | 90th percentile | within 5 cm / 5 deg | NEES/6, in 95 % | novelty: AUC, "
        "kept, rejected |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for split in _SPLITS:
        found = _of(figures, rows.DEFAULT, split)
        if found:
            lines.append(
                f"| {split} | {len(found)} | {_pose(found, 'median')} | {_pose(found, 'p90')} | "
                f"{_percent(found, 'recall_5cm_5deg')} "
                f"| {_median(found, 'nees_mean') / 6:.2f}, {_percent(found, 'nees_within_95')} "
                f"| {_median(found, 'auc'):.3f}, {_percent(found, 'kept_here')}, {_percent(found, 'rejected_there')} |"
            )
    lines += ["", "| part of the design | near | mid | far |", "|---|---|---|---|"]
    for row in [rows.DEFAULT, *rows.PARTS]:
        cells = [_pose(found, "median") if (found := _of(figures, row, split)) else "-" for split in _SPLITS]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    lines += ["", "| frames | near | mid | far |", "|---|---|---|---|"]
    for length in (5, 10):
        lines.append(
            f"| {length} | {' | '.join(_window(_of(figures, rows.DEFAULT, split), length) for split in _SPLITS)} |"
        )
    lines += [
        "",
        "| lever | what | median error | 90th percentile | within 5 cm / 5 deg | seconds of training |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows.TRIALS:
        found = _of(figures, row, "mid")
        if found:
            seconds = f"{_median(found, 'training_seconds'):.0f}" if "training_seconds" in found[0] else ""
            lines.append(
                f"| {row.lever} | {row.name} | {_pose(found, 'median')} | {_pose(found, 'p90')} | "
                f"{_percent(found, 'recall_5cm_5deg')} | {seconds} |"
            )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _of(figures: dict[str, dict], row: rows.Row, split: str) -> list[dict]:
    start = f"{row.lever}/{row.name}/{split}/"
    return [value for key, value in figures.items() if key.startswith(start)]


def _median(found: list[dict], name: str) -> float:
    return float(np.median([each[name] if each[name] is not None else np.nan for each in found]))


def _pose(found: list[dict], kind: str) -> str:
    return f"{100 * _median(found, f'{kind}_translation_m'):.1f} cm / {_median(found, f'{kind}_rotation_deg'):.2f} deg"


def _percent(found: list[dict], name: str) -> str:
    return f"{100 * _median(found, name):.0f} %"


def _window(found: list[dict], length: int) -> str:
    found = [each[f"window_{length}"] for each in found if each.get(f"window_{length}", {}).get("windows")]
    if not found:
        return "no window that long"

    def pose(prefix: str) -> str:
        return (
            f"{100 * _median(found, f'{prefix}translation_m'):.1f} cm / "
            f"{_median(found, f'{prefix}rotation_deg'):.2f} deg"
        )

    return f"{pose('')} (alone {pose('alone_')}; {found[0]['windows']} windows)"
