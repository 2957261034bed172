"""The ablation table: ``python -m benchmarks.ablation data`` makes it, resumes it, and prints it.

Features are encoded once into results/ablation/features; every row's figures go to results/ablation/figures.json as
soon as they are there, and are not measured again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

import numpy as np  # noqa: E402

from benchmarks.ablation import features, rows, train, windows  # noqa: E402
from benchmarks.peers.scenes import OTHER_PLACES  # noqa: E402
from benchmarks.report import Store  # noqa: E402
from dimm_ros.audit.membership import auc  # noqa: E402
from dimm_ros.cli.console import Bars, bars, console  # noqa: E402
from dimm_ros.scene_map import SceneMap  # noqa: E402

ROOT = Path("results") / "ablation"
SPLITS, SEEDS, TRIAL_SPLIT = ("near", "mid", "far"), (0, 1, 2), "mid"
WINDOWS = (5, 10)


class AblationRunner:
    """Runs rows that are not in the store."""

    def __init__(self, data: Path, store: Store, progress: Bars) -> None:
        self._data, self._store, self._progress = data, store, progress
        self._features: dict[tuple, features.Features] = {}
        self._baselines: dict[
            tuple[str, int], SceneMap
        ] = {}  # the trials' first row, for those that change the solver alone

    def run(self, row: rows.Row, split: str, seeds: tuple[int, ...]) -> None:
        """All seeds of a row on a split; the default also gives the windows' and the novelty's figures."""
        for seed in seeds:
            key = f"{row.lever}/{row.name}/{split}/{seed}"
            if key in self._store.figures:
                continue
            val = self._of(split, "val", row)
            stored = ROOT / "maps" / f"{split}_{seed}.dimm"
            if row is rows.PATCHES_ALONE:
                self.run(rows.DEFAULT, split, (seed,))
                scene_map = SceneMap.load(stored)
                scene_map.head.whole = None
                judged = train.judge_solver(row, seed, scene_map, val)
            elif row.solver and (split, seed) in self._baselines:
                judged = train.judge_solver(row, seed, self._baselines[split, seed], val)
            else:
                judged = train.judge(row, seed, self._of(split, "train", row), val, self._progress)
            if row is rows.TRIALS[0]:
                self._baselines[split, seed] = judged.scene_map
            if row is rows.DEFAULT:
                judged.figures.update(self._more(judged, val))
                judged.scene_map.save(ROOT / "maps" / f"{split}_{seed}.dimm")
                judged.held_out_map.save(ROOT / "maps" / f"{split}_{seed}_held_out.dimm")
            self._store.put(key, judged.figures)

    def _more(self, judged: train.RowResult, val: features.Features) -> dict:
        scene_map = judged.scene_map
        more: dict = {"calibration": scene_map.header.calibration.model_dump()}
        for length in WINDOWS:
            more[f"window_{length}"] = windows.window_errors(scene_map, val, length)
        here = train.novelty_of(scene_map.head.whole, val.context("parts"))
        there = np.concatenate(
            [
                train.novelty_of(
                    scene_map.head.whole,
                    features.contexts_of(self._data.parent / name, every, ROOT / "features", self._progress),
                )
                for name, every in OTHER_PLACES.items()
            ]
        )
        most = scene_map.header.calibration.max_novelty
        more |= {
            "auc": auc(there, here),
            "other_images": len(there),
            "kept_here": float(np.mean(here <= most)),
            "rejected_there": float(np.mean(there > most)),
        }
        return more

    def _of(self, split: str, part: str, row: rows.Row) -> features.Features:
        views = row.views if part == "train" else "recorded"
        key = (split, part, views, row.input_size)
        if key not in self._features:
            # one split at a time in memory
            self._features = {other: kept for other, kept in self._features.items() if other[0] == split}
            self._features[key] = features.encode(
                self._data, f"{split}:{part}", views, ROOT / "features", self._progress, row.input_size, row.passes
            )
        return self._features[key]


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder of the shared data sets")
    parser.add_argument("--only", choices=["default", "parts", "trials", "print"], help="a part of the table")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="these alone")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=SEEDS, help="of the default and of the parts that have several"
    )
    given = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    store = Store(ROOT / "figures.json")
    with bars() as progress:
        bench = AblationRunner(given.data / "redkitchen", store, progress)
        for split in given.splits:
            if given.only in (None, "default"):
                bench.run(rows.DEFAULT, split, given.seeds)
            for row in rows.PARTS if given.only in (None, "parts") else ():
                bench.run(row, split, given.seeds if row.kind in ("head", "regression") else given.seeds[:1])
        for row in rows.TRIALS if given.only in (None, "trials") and TRIAL_SPLIT in given.splits else ():
            bench.run(row, TRIAL_SPLIT, given.seeds[:1])
    from benchmarks.ablation.table import print_tables

    print_tables(store.figures, console)


if __name__ == "__main__":
    main()
