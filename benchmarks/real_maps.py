"""Maps of a real recording's splits, judged on the frames left out: ``python -m benchmarks.real_maps data/redkitchen``.

Long and resumable: each map goes on from where it was cut off, and a figure that is there is not measured again. Writes
``results/real_maps/figures.json`` and prints the rows of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

from dimm_ros.cli.console import bars, console  # noqa: E402
from dimm_ros.config import PRESETS  # noqa: E402
from dimm_ros.data.open import open_recording  # noqa: E402
from dimm_ros.encoder.dinov2 import Encoder  # noqa: E402
from dimm_ros.evaluation.evaluate import evaluate  # noqa: E402
from dimm_ros.evaluation.metrics import summarise  # noqa: E402
from dimm_ros.evaluation.report import results_folder, write_report  # noqa: E402
from dimm_ros.localizer import Localizer  # noqa: E402
from dimm_ros.mapping.build import build_map  # noqa: E402
from dimm_ros.mapping.retrieval import ReferenceViews  # noqa: E402
from dimm_ros.whole_file import write_whole  # noqa: E402

ROOT = Path("results") / "real_maps"


def measure(data: Path, split: str, seed: int, preset: str) -> dict:
    """Build one map and judge it; the figures of ``dimm eval`` with the time of the mapping."""
    chosen = PRESETS[preset]
    training = chosen.training.changed(seed=seed)
    encoder = Encoder.open(chosen.encoder)
    path = ROOT / f"{data.name}_{split}_{preset}_{seed}.dimm"
    with bars(stoppable=True) as progress:
        result = build_map(
            open_recording(data, split=f"{split}:train"),
            path,
            encoder,
            head=chosen.head,
            training=training,
            landmarks=chosen.landmarks,
            progress=progress,
        )
        if not result.complete:
            raise KeyboardInterrupt
        seconds = sum(result.seconds.values())
        localizer = Localizer.open(path)
        recording = open_recording(data, split=f"{split}:val")
        reference = ReferenceViews.load(path, localizer.map.header)
        answers = evaluate(localizer, recording, reference, lambda done, total: progress("localizing", done, total))
    figures = summarise(answers)
    write_report(results_folder(f"{path.stem}", ROOT), f"{data.name} {split}", answers, figures)
    return figures | {
        "split": split,
        "seed": seed,
        "preset": preset,
        "mapping_seconds": round(seconds, 1),
        "map_bytes": path.stat().st_size,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "encoder": encoder.weights.origin,
        "date": time.strftime("%Y-%m-%d"),
    }


def row(figures: dict) -> str:
    """One line of the table in docs/benchmarks.md."""

    def pose(kind: str) -> str:
        return f"{100 * figures[f'{kind}_translation_m']:.1f} cm / {figures[f'{kind}_rotation_deg']:.2f} deg"

    return (
        f"| {figures['split']} | {pose('median')} | {pose('p90')} | {100 * figures['recall_5cm_5deg']:.0f} % "
        f"| {figures['answered']} of {figures['frames']} | {pose('retrieval_median')} "
        f"| {figures['nees_mean'] / 6:.2f}, {100 * figures['nees_within_95']:.0f} % | "
        f"{figures['mapping_seconds'] / 60:.0f} min |"
    )


def main() -> None:
    """Measure what is missing and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", nargs="+", default=["near", "mid", "far"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--preset", default="cpu", choices=sorted(PRESETS))
    given = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    store = ROOT / "figures.json"
    known: dict[str, dict] = json.loads(store.read_text()) if store.is_file() else {}
    for seed in given.seeds:
        for split in given.splits:
            key = f"{given.data.name}/{split}/{given.preset}/{seed}"
            if key not in known:
                known[key] = measure(given.data, split, seed, given.preset)
                write_whole(store, json.dumps(known, indent=2) + "\n")
            console.print(row(known[key]), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
