"""Bags and map of the demo, kept in a work folder: a second run goes on from what is there, if nothing has changed."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from dimm_ros import __version__
from dimm_ros.config import Preset
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.errors import MapError
from dimm_ros.mapping.build import BuildResult, build_map, fingerprint
from dimm_ros.mapping.retrieval import reference_path
from dimm_ros.progress import ProgressCallback
from dimm_ros.replay.demo_bags import DemoBags, bags_of_data, bags_of_gallery, gallery_mark
from dimm_ros.scene_map import SceneMap
from dimm_ros.whole_file import write_whole

_MARK, _BAGS, _MAP = "mark", "bags", "map.dimm"


def demo_bags(work: Path, data: Recording | None, split: str | None, progress: ProgressCallback) -> DemoBags:
    """The two bags, recorded in the work folder or there already.

    Args:
        work: folder that is kept between runs; what it holds of other data or of another version goes.
        data, split: as of ``bags_of_data``; no data for the rendered gallery.
        progress: see ``ProgressCallback``.
    """
    source = gallery_mark() if data is None else (data.state(), split)
    mark = fingerprint(__version__, source)
    if not (work / _MARK).is_file() or (work / _MARK).read_text(encoding="utf-8") != mark:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_whole(work / _MARK, mark)
    if not (work / _BAGS).is_file():
        for bag in ("mapping_bag", "query_bag"):
            shutil.rmtree(work / bag, ignore_errors=True)
        try:
            stage = bags_of_gallery(work, progress) if data is None else bags_of_data(data, split, work, progress)
        except BaseException:  # half a bag is of no use, and Ctrl-C is one
            shutil.rmtree(work, ignore_errors=True)
            raise
        write_whole(work / _BAGS, f"{stage.mapping.name} {stage.query.name}\n")
        return stage
    return DemoBags.of(work, gallery=data is None)


def demo_map(
    work: Path, recording: Recording, encoder: Encoder, preset: Preset, progress: ProgressCallback
) -> BuildResult:
    """The map of the first bag's recording, made in the work folder or there already."""
    path = work / _MAP
    try:
        return _map_of(path, recording, encoder, preset, progress)
    except Exception:  # what cannot be mapped is not kept; Ctrl-C goes on from there
        shutil.rmtree(work, ignore_errors=True)
        raise


def _map_of(
    path: Path, recording: Recording, encoder: Encoder, preset: Preset, progress: ProgressCallback
) -> BuildResult:
    try:
        header = SceneMap.load(path).header
    except MapError:
        header = None
    wanted = preset.changed(encoder=encoder.config)
    if header is not None and header.encoder_sha256 == encoder.weights.sha256 and header.made_as(wanted):
        stages = ("landmarks", "features", "training")
        return BuildResult(path, True, {stage: float(header.figures.get(f"{stage}_seconds", 0)) for stage in stages})
    return build_map(
        recording,
        path,
        encoder,
        head=preset.head,
        training=preset.training,
        landmarks=preset.landmarks,
        name="demo",
        progress=progress,
    )


def linked(work: Path, stage: DemoBags, folder: Path) -> DemoBags:
    """Bags and map in a folder of results, which stays whole when the work folder goes; without a second copy on the
    disk where the file system can.
    """
    for bag in (stage.mapping, stage.query):
        shutil.copytree(bag, folder / bag.name, copy_function=_link)
    for file in (work / _MAP, reference_path(work / _MAP)):
        _link(file, folder / file.name)
    return replace(stage, mapping=folder / stage.mapping.name, query=folder / stage.query.name)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
