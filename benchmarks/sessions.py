"""Do several sessions in one map help? ``python -m benchmarks.sessions``: the gallery in the morning (as it is) and
in the evening (low light).

Each session is another walk; maps of either alone, both merged (``dimm map merge``), and the morning's updated with
the evening's (``dimm map update``) are judged on a third walk in either light. Resumable: results/sessions holds
maps and
figures.json."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

import typer  # noqa: E402

from benchmarks.report import Store, run  # noqa: E402
from dimm_ros.cli.console import Bars, bars, console  # noqa: E402
from dimm_ros.config import PRESETS  # noqa: E402
from dimm_ros.data.recording import Recording  # noqa: E402
from dimm_ros.encoder.dinov2 import Encoder  # noqa: E402
from dimm_ros.evaluation.evaluate import evaluate  # noqa: E402
from dimm_ros.evaluation.metrics import summarise  # noqa: E402
from dimm_ros.gallery.conditions import Condition, film  # noqa: E402
from dimm_ros.gallery.recorder import GALLERY_CAMERA  # noqa: E402
from dimm_ros.gallery.scene import build_room  # noqa: E402
from dimm_ros.gallery.trajectory import MOUNTS, trajectory  # noqa: E402
from dimm_ros.localizer import Localizer  # noqa: E402
from dimm_ros.mapping.build import build_map  # noqa: E402
from dimm_ros.mapping.merge import merge_maps  # noqa: E402
from dimm_ros.mapping.update import update_map  # noqa: E402
from dimm_ros.scene_map import SceneMap  # noqa: E402

ROOT = Path("results") / "sessions"
MAPS = {
    "morning": "morning alone",
    "evening": "evening alone",
    "merged": "both, merged",
    "updated": "morning, updated with the evening",
}
LIGHTS: dict[str, Condition] = {"morning": "clean", "evening": "low_light"}
_SEEDS = {"morning": 1, "evening": 2, "query": 3}
_TF_HZ, _ROUND_S = 48.0, 14.0  # a round of the walk
_KEPT = (
    "frames",
    "answered",
    "median_translation_m",
    "median_rotation_deg",
    "recall_5cm_5deg",
    "recall_10cm_5deg",
    "nees_mean",
)


def session(name: str, light: Condition, images: int, rounds: int) -> Recording:
    """So many images of a walk, each rendered once."""
    stamps, world_from_base = trajectory(_SEEDS[name], rounds * _ROUND_S, _TF_HZ)
    recording = film(
        build_room(),
        GALLERY_CAMERA,
        stamps,
        world_from_base @ MOUNTS["handheld"],
        light,
        every=max(1, len(stamps) // images),
        seed=_SEEDS[name],
    )
    return replace(recording, frames=[replace(frame, load=cache(frame.load)) for frame in recording.frames[:images]])


class SessionsBenchmark:
    """Makes the maps that are missing, and judges them."""

    def __init__(
        self, folder: Path, images: int, queries: int, steps: int, input_size: int, passes: int, progress: Bars
    ) -> None:
        self._folder, self._progress = folder, progress
        preset = PRESETS["demo"]
        self._preset = preset.model_copy(
            update={
                "training": preset.training.changed(steps=steps, images=images, passes=passes),
                "landmarks": preset.landmarks.changed(images=images),
            }
        )
        self._encoder = Encoder.open(preset.encoder.changed(input_size=input_size), device="cpu")
        self._sessions = {name: session(name, light, images, 4) for name, light in LIGHTS.items()}
        self._queries = {name: session("query", light, queries, 2) for name, light in LIGHTS.items()}

    def make(self, name: str) -> Path:
        """A map's file, made if it is not there."""
        path = self._folder / f"{name}.dimm"
        if path.is_file() and SceneMap.load(path).header.complete:
            return path
        if name == "merged":
            return merge_maps([self.make(part) for part in LIGHTS], path)

        def progress(stage: str, done: int, total: int, note: str) -> bool:
            return self._progress(f"{name}: {stage}", done, total, note)

        if name == "updated":
            result = update_map(
                self.make("morning"),
                [self._sessions["evening"]],
                self._encoder,
                path,
                training=self._preset.training,
                progress=progress,
            )
        else:
            result = build_map(
                self._sessions[name],
                path,
                self._encoder,
                head=self._preset.head,
                training=self._preset.training,
                landmarks=self._preset.landmarks,
                progress=progress,
            )
        if not result.complete:
            raise KeyboardInterrupt
        return path

    def judge(self, name: str, light: str) -> dict:
        """Figures of a map on the third walk in a light."""
        localizer = Localizer(SceneMap.load(self.make(name)), self._encoder)
        answers = evaluate(
            localizer,
            self._queries[light],
            None,
            lambda done, total: self._progress(f"{name} in the {light}", done, total, ""),
        )
        figures = summarise(answers)
        return {key: figures[key] for key in _KEPT} | {"megabytes": self.make(name).stat().st_size / 1e6}


def row(name: str, figures: dict[str, dict]) -> str:
    """One line of the table in docs/maps.md."""

    def cell(one: dict) -> str:
        if not one["answered"]:
            return f"0 of {one['frames']}"
        median = f"{100 * one['median_translation_m']:.2f} cm / {one['median_rotation_deg']:.2f} deg"
        return f"{median}, {100 * one['recall_5cm_5deg']:.0f} %, {one['answered']} of {one['frames']}"

    size = figures["morning"]["megabytes"]
    return f"| {MAPS[name]} | {cell(figures['morning'])} | {cell(figures['evening'])} | {size:.1f} MB |"


def main(
    images: Annotated[int, typer.Option(help="of each session")] = 100,
    queries: Annotated[int, typer.Option(help="images that are asked, in each light")] = 40,
    steps: Annotated[int, typer.Option(help="of each training")] = PRESETS["demo"].training.steps,
    input_size: Annotated[int, typer.Option(help="longer side of the encoder's input, pixels")] = PRESETS[
        "demo"
    ].encoder.input_size,
    passes: Annotated[int, typer.Option(help="encoded views an image")] = PRESETS["demo"].training.passes,
) -> None:
    """Measure what is missing and print all rows."""
    settings = f"{images}_{queries}_{steps}_{input_size}_{passes}"
    folder = ROOT / settings
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "figures.json")
    wanted = [(name, light) for name in MAPS for light in LIGHTS if f"{name}/{light}" not in store.figures]
    if wanted:
        with bars(stoppable=True) as progress:
            bench = SessionsBenchmark(folder, images, queries, steps, input_size, passes, progress)
            for name, light in wanted:
                store.put(f"{name}/{light}", bench.judge(name, light))
    for name in MAPS:
        console.print(
            row(name, {light: store.figures[f"{name}/{light}"] for light in LIGHTS}), highlight=False, soft_wrap=True
        )


if __name__ == "__main__":
    run(main)
