"""Does an updated map know both recordings? ``python -m benchmarks.map_update data``.

Red kitchen's train frames (split near), first and second half: a map of the first half is updated with the second, with
and without kept features, and merged with a map of the second half; each is judged on the val frames, beside a map of
all train frames. Uses the features of ``benchmarks.ablation`` (encoded if absent). Long and resumable:
results/map_update holds maps, checkpoints and figures.json.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.ablation import features  # noqa: E402
from benchmarks.ablation.rows import DEFAULT  # noqa: E402
from benchmarks.ablation.train import localized  # noqa: E402
from benchmarks.report import Store  # noqa: E402
from dimm_ros import __version__  # noqa: E402
from dimm_ros.cli.console import Bars, bars, console  # noqa: E402
from dimm_ros.config import PRESETS, EncoderConfig  # noqa: E402
from dimm_ros.evaluation.metrics import FrameResult, summarise  # noqa: E402
from dimm_ros.mapping.build import now  # noqa: E402
from dimm_ros.mapping.fit import MapFit  # noqa: E402
from dimm_ros.mapping.merge import merge_maps  # noqa: E402
from dimm_ros.mapping.rehearse import features_path, keep_features, load_features, remembered_views  # noqa: E402
from dimm_ros.mapping.trainer import Normalisation  # noqa: E402
from dimm_ros.mapping.training_views import TrainingViews  # noqa: E402
from dimm_ros.mapping.update import updated_header  # noqa: E402
from dimm_ros.scene_map import MapHeader, SceneMap, SourceRecording  # noqa: E402

ROOT = Path("results") / "map_update"
MAPS = {
    "first": "map of the first half",
    "all": "map of all",
    "remembered": "first, updated with the second half (no features kept)",
    "kept": "first, updated with the second half (features kept)",
    "second": "map of the second half",
    "merged": "both halves' maps, merged",
}


class UpdateBenchmark:
    """Makes the maps that are missing, and judges them."""

    def __init__(self, data: Path, steps: int, progress: Bars) -> None:
        self._progress, self._folder = progress, ROOT / f"{steps}"
        stored = ROOT.parent / "ablation" / "features"
        train = features.encode(
            data / "redkitchen", "near:train", DEFAULT.views, stored, progress, passes=DEFAULT.passes
        )
        self._val = features.encode(data / "redkitchen", "near:val", "recorded", stored, progress)
        self._data = train.chosen(DEFAULT.layers, DEFAULT.context, DEFAULT.passes)
        names = [frame.name for frame in train.recording.frames]
        self._middle = names[len(names) // 2]
        self._halves = [torch.arange(0, len(names) // 2), torch.arange(len(names) // 2, len(names))]
        self._preset = PRESETS["cpu"]
        self._training = self._preset.training.changed(steps=steps)

    def make(self, name: str) -> SceneMap:
        """A map, from its file if it is there."""
        path = self._folder / f"{name}.dimm"
        if path.is_file():
            return SceneMap.load(path)
        if name == "merged":
            for part in ("first", "second"):
                self.make(part)
            return SceneMap.load(merge_maps([self._folder / "first.dimm", self._folder / "second.dimm"], path))
        if name in ("first", "all", "second"):
            half = {"first": self._halves[:1], "second": self._halves[1:], "all": self._halves}[name]
            scene_map = self._fit(
                name, self._header(name, cut(self._data, torch.cat(half))), cut(self._data, torch.cat(half))
            )
            if name == "first":
                keep_features(features_path(path), scene_map.header, cut(self._data, self._halves[0]))
        else:
            old, new = self.make("first"), cut(self._data, self._halves[1])
            rehearsal = (
                remembered_views(old, new, 0)
                if name == "remembered"
                else load_features(features_path(self._folder / "first.dimm"), old.header)
            )
            header = updated_header(
                old.header, (SourceRecording(name="second", frames=len(self._halves[1])),), self._training, {}
            )
            scene_map = self._fit(name, header, new, start=old, rehearsal=rehearsal)
        scene_map.save(path)
        (self._folder / f"{name}.training").unlink(missing_ok=True)
        return scene_map

    def _fit(self, name: str, header: MapHeader, data: TrainingViews, **more) -> SceneMap:
        def progress(_: str, done: int, total: int, note: str) -> bool:
            self._progress(name, done, total, note)
            return False

        self._folder.mkdir(parents=True, exist_ok=True)
        checkpoint, mark = self._folder / f"{name}.training", f"{name} {self._training}"
        return MapFit(header, data, checkpoint, mark, torch.device("cpu"), progress, **more).run().scene_map

    def _header(self, name: str, data: TrainingViews) -> MapHeader:
        frames = data.frames
        normalisation = Normalisation.of(data.centres[:frames])
        return MapHeader(
            name=name,
            frame_id="map",
            created=now(),
            dimm_version=__version__,
            encoder=EncoderConfig(),
            encoder_sha256="0" * 64,
            encoder_origin="",
            patch_dim=data.patches.shape[1],
            context_dim=data.context.shape[1],
            head=self._preset.head,
            training=self._training,
            origin=tuple(normalisation.origin.tolist()),
            radius=normalisation.radius,
            sources=(SourceRecording(name=name, frames=frames),),
        )

    def judge(self, scene_map: SceneMap) -> dict[str, dict]:
        """Figures on all val frames and on those of each half."""
        answers = localized(scene_map, self._val, DEFAULT, 0)
        early = [answer for answer in answers if answer.name < self._middle]
        late = [answer for answer in answers if answer.name >= self._middle]
        return {
            part: _figures(chosen) for part, chosen in (("val", answers), ("first half", early), ("second half", late))
        }


def _figures(answers: list[FrameResult]) -> dict:
    figures = summarise(answers)
    return {
        name: figures[name]
        for name in (
            "frames",
            "median_translation_m",
            "median_rotation_deg",
            "p90_translation_m",
            "p90_rotation_deg",
            "recall_5cm_5deg",
            "nees_mean",
            "nees_within_95",
        )
    }


def cut(data: TrainingViews, frames: Tensor) -> TrainingViews:
    """The views of some consecutive frames, numbered anew."""
    views = torch.isin(data.frame_of.long(), frames)
    rows = views[data.view_of.long()]
    number = views.long().cumsum(0) - 1
    result = {name: getattr(data, name)[rows] for name in ("patches", "camera_rays", "directions")}
    result |= {name: getattr(data, name)[views] for name in ("context", "centres", "rotations")}
    return TrainingViews(
        **result,
        view_of=number[data.view_of.long()[rows]].int(),
        frame_of=(data.frame_of[views] - int(frames[0])).int(),
    )


def row(name: str, figures: dict[str, dict]) -> str:
    """One line of the table in docs/maps.md."""

    def cell(part: str) -> str:
        one = figures[part]
        return (
            f"{100 * one['median_translation_m']:.2f} cm / {one['median_rotation_deg']:.2f} deg, "
            f"{100 * one['recall_5cm_5deg']:.0f} %"
        )

    nees = figures["val"]["nees_mean"] / 6
    return (
        f"| {name} | {cell('val')} | {cell('first half')} | {cell('second half')} | {nees:.2f}, "
        f"{100 * figures['val']['nees_within_95']:.0f} % |"
    )


def main() -> None:
    """Measure what is missing and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder of the shared data sets")
    parser.add_argument("--steps", type=int, default=PRESETS["cpu"].training.steps, help="of each training")
    parser.add_argument("--only", nargs="+", choices=sorted(MAPS), default=list(MAPS))
    given = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    store = Store(ROOT / "figures.json")
    bench = None
    with bars() as progress:
        for name in given.only:
            key = f"{name}/{given.steps}"
            if key not in store.figures:
                bench = bench or UpdateBenchmark(given.data, given.steps, progress)
                store.put(key, bench.judge(bench.make(name)))
    for name in MAPS:
        if f"{name}/{given.steps}" in store.figures:
            console.print(row(MAPS[name], store.figures[f"{name}/{given.steps}"]), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
