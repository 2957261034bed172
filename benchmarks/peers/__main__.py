"""``python -m benchmarks.peers data``: this package and its peers on the same images, poses, machine and run.

Every row (a scene and a peer) runs in a process of its own, so that its peak memory is its own; its figures are stored
at once in results/bench_peers/figures.json and not measured again. Writes docs/benchmarks_peers.md and its pictures
from what is stored, and names the peers that are not. ``make bench-peers`` installs the peers first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

from benchmarks.peers import cost  # noqa: E402
from benchmarks.peers.measure import PEERS, measure, missing, peer_of  # noqa: E402
from benchmarks.peers.scenes import SCENES  # noqa: E402
from benchmarks.report import Store  # noqa: E402
from dimm_ros.cli.console import bars, console  # noqa: E402

ROOT = Path("results") / "bench_peers"
DOCUMENT = Path("docs") / "benchmarks_peers.md"
QUICK_STEPS = 20

_KITCHEN = [f"redkitchen_{split}" for split in ("near", "mid", "far")]
_CHEAP = ["retrieval", "retrieval_mean", "dimm", "pose_regression"]
#: Rows in the order in which they are worth having: wherever it is cut off, the table is of use.
ORDER = [
    *((scene, peer) for peer in [*_CHEAP, "sift", "scene_coordinates"] for scene in _KITCHEN),
    *(("herzjesu", peer) for peer in [*_CHEAP, "sift", "scene_coordinates"]),
    ("redkitchen_near", "lightglue"),
    ("redkitchen_far", "lightglue"),
    *(
        (scene, peer)
        for scene in ("gallery", "bonsai", "office_hololens")
        for peer in [*_CHEAP, "sift", "scene_coordinates"]
    ),
    *(
        (scene, "scene_coordinates_context")
        for scene in [*_KITCHEN, "herzjesu", "gallery", "bonsai", "office_hololens"]
    ),
    ("redkitchen_mid", "lightglue"),
    *((scene, "lightglue") for scene in ("herzjesu", "gallery", "bonsai", "office_hololens")),
]


def main() -> None:
    """Measure what is missing and write the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder of the shared data sets")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, help="these alone")
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="these alone")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a handful of images and steps, to see that it runs; its figures mean nothing",
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="start no row after this time; 0 writes the document alone"
    )
    parser.add_argument("--no-cost", action="store_true", help="leave the cost curves out")
    parser.add_argument("--results", type=Path, default=ROOT, help="where figures, features and maps are kept")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="the document to write")
    parser.add_argument("--row", nargs=2, metavar=("SCENE", "PEER"), help=argparse.SUPPRESS)
    parser.add_argument("--cost", nargs=2, metavar=("KIND", "POINT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cost:
        print(json.dumps(cost.measure(given.cost[0], int(given.cost[1]))))
        return
    steps = QUICK_STEPS if given.quick else None
    if given.row:
        with bars() as progress:
            figures = measure(*given.row, given.data, given.results, progress, steps=steps, quick=given.quick)
        print(json.dumps(figures))
        return
    given.results.mkdir(parents=True, exist_ok=True)
    store = Store(given.results / ("quick.json" if given.quick else "figures.json"))
    end = time.monotonic() + 60 * given.minutes
    for scene, peer in ORDER:
        if (
            scene in (given.scenes or SCENES)
            and peer in (given.peers or PEERS)
            and f"{scene}/{peer}" not in store.figures
        ):
            if time.monotonic() > end:
                break
            _run(scene, peer, given, store)
    if not given.no_cost:
        with bars() as progress:
            cost.run(given.data, store, end, progress)
    if not given.quick:
        from benchmarks.peers.document import write

        console.print(f"written: {write(store.figures, given.document)}", highlight=False, soft_wrap=True)


def _run(scene: str, peer: str, given: argparse.Namespace, store: Store) -> None:
    """One row in a process of its own; one that fails is named and left out."""
    lacking = missing(peer)
    if lacking:
        console.print(
            f"{scene}/{peer}: not measured, {', '.join(lacking)} not installed (make bench-peers installs it)",
            highlight=False,
        )
        return
    command = [sys.executable, "-m", "benchmarks.peers", str(given.data), "--results", str(given.results)] + [
        "--quick"
    ] * given.quick
    start = time.monotonic()
    shares = getattr(peer_of(peer), "FEATURES", True)
    # In their own process, whose memory is not the peer's.
    if shares and _child([*command, "--row", scene, "features"]) is None:
        console.print(f"{scene}: features failed (see above)", highlight=False)
        return
    figures = _child([*command, "--row", scene, peer])
    if figures is None:
        console.print(f"{scene}/{peer}: failed (see above)", highlight=False)
        return
    store.put(f"{scene}/{peer}", figures)
    first = next(iter(figures["conditions"].values()))
    cm = first["median_translation_m"]
    median = "no median" if cm is None else f"{100 * cm:.1f} cm / {first['median_rotation_deg']:.2f} deg"
    console.print(f"{scene}/{peer}: {median}, {time.monotonic() - start:.0f} s", highlight=False)


def _child(command: list[str]) -> dict | None:
    """What a process of this module prints as its last line, None if it failed."""
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return None if result.returncode else json.loads(result.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
