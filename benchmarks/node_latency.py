"""``python -m benchmarks.node_latency``: what the node adds to ``localize()``, from an image's stamp to its pose in
another process.

Three processes on one computer, over DDS with the FastDDS profile that the launch files use: a camera (640x480 rgb8,
camera_info and odometry), the localizer with its small map of the gallery, and this one, which receives the poses. Each
image is taken when the status of the one before has come, so that none waits for another; ``--stream`` adds a camera
that takes 30 a second, whatever becomes of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

import numpy as np  # noqa: E402

from benchmarks.report import Row, machine, table, write_json  # noqa: E402
from dimm_ros.cli.console import console  # noqa: E402

BAR_MS = 10.0
_RATE_HZ = 30.0
_WARM_UP = 10  # images before the first that counts: the gate's first fix, and first times
_WAIT_S = 60.0
_REMAP = {"image": "/camera/image_raw", "camera_info": "/camera/camera_info"}


def camera(recording: Path) -> None:
    """The camera's process: an image for each line of the standard input, its stamp for an answer."""
    import rclpy

    from benchmarks.soak.camera import SoakCamera

    rclpy.init(args=[])
    publisher = SoakCamera(recording)
    publisher.wait_for_listener()
    print("ready", flush=True)
    for tick, _ in enumerate(sys.stdin):
        print(publisher.publish(tick, ""), flush=True)


def measure(images: int, folder: Path, stream: bool) -> list[Row]:
    """Rows of milliseconds; the maps are made in ``folder`` unless they are there."""
    from benchmarks.soak.prepare import make_maps
    from dimm_ros.replay.collector import Collector
    from dimm_ros.replay.session import LocalizerProcess, LocalSession

    scene_map = folder / "map.safetensors"
    recording = folder / "walk" if scene_map.is_file() else make_maps(folder)[0]
    parameters = {"map": str(scene_map), "max_image_age": 5.0, "device": "cpu"}
    rows = []
    with LocalSession("latency") as session:
        collector = Collector(session.node)
        with LocalizerProcess(session.environment, parameters, _REMAP, folder / "localizer.log"):
            command = [sys.executable, "-m", "benchmarks.node_latency", "--camera", str(recording)]
            with subprocess.Popen(
                command, env=session.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as process:

                def take() -> int:
                    process.stdin.write("\n")
                    process.stdin.flush()
                    return int(process.stdout.readline())

                process.stdout.readline()
                for _ in range(200):  # until the discovery of all topics is through
                    stamp = take()
                    if collector.wait_for(lambda stamp=stamp: collector.report_of(stamp), 1.0):
                        break
                for way in ("one by one", "30 a second")[: 2 if stream else 1]:
                    stamps, due = [], time.monotonic()
                    for _ in range(_WARM_UP + images):
                        stamps.append(take())
                        if way == "one by one":
                            collector.wait_for(lambda stamp=stamps[-1]: collector.report_of(stamp), _WAIT_S)
                        else:
                            due += 1.0 / _RATE_HZ
                            time.sleep(max(0.0, due - time.monotonic()))
                    collector.wait_for(lambda: False, 0.5)  # the last poses
                    rows.append({"images": way} | _row(collector, set(stamps[_WARM_UP:])))
                process.stdin.close()
    return rows


def _row(collector, stamps: set[int]) -> Row:
    """Medians of the images with these stamps that were answered: ``localize()``, stamp to arrival, their difference
    ("added"; its 90th percentile as well), and how much of that is over when the node publishes."""
    wall_minus_steady = time.time() - time.monotonic()  # stamps are wall time, arrivals are steady
    reports = {
        report.stamp_ns: report.message
        for report in collector.reports
        if report.stamp_ns in stamps and report.message.accepted
    }
    found = []
    for answer in collector.answers:
        if answer.stamp_ns in reports:
            status = reports[answer.stamp_ns]
            latency = (answer.received_s + wall_minus_steady) * 1e3 - answer.stamp_ns * 1e-6
            found.append((latency, status.total_ms, status.image_age_ms))
    latency, localize, published = np.array(found).T
    added = latency - localize
    return {
        "taken": len(stamps),
        "answered": len(found),
        "localize": float(np.median(localize)),
        "arrival": float(np.median(latency)),
        "added": float(np.median(added)),
        "p90": float(np.percentile(added, 90)),
        "to publish": float(np.median(published - localize)),
    }


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="how many count")
    parser.add_argument("--stream", action="store_true", help="also with 30 images a second")
    parser.add_argument("--folder", type=Path, help="where recording and map are kept; default: made anew each time")
    parser.add_argument(
        "--results", type=Path, default=Path("results/node_latency"), help="where the figures are kept as JSON"
    )
    parser.add_argument("--camera", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.camera is not None:
        return camera(given.camera)
    with tempfile.TemporaryDirectory(prefix="dimm_latency_") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        facts = machine(["cpu"])
        rows = measure(given.images, folder, given.stream)
    console.print(json.dumps(facts), markup=False, highlight=False, soft_wrap=True)
    console.print(
        table(f"what the node adds to localize(), ms; the bar of the median is {BAR_MS:g} for images one by one", rows)
    )
    console.print(
        f"figures: {write_json({'machine': facts, 'rows': rows}, given.results)}", highlight=False, soft_wrap=True
    )


if __name__ == "__main__":
    main()
