"""``python -m benchmarks.tutorial``: runs docs/tutorial.md's own commands and puts what they print, and their pictures,
into the page.

``<!-- run NAME -->`` above a fenced block of the page marks commands, ``<!-- printed by NAME -->`` one that is filled
with what they print. docs/tutorial.json keeps the last run, with what its figures depend on; a test compares page, run
and code. A run that was stopped goes on where it was, and only what changed, and what follows it, is run again. To
begin anew remove results/tutorial and docs/tutorial.json. The README's first picture is drawn of the same map.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.report import machine, put_json, run
from dimm_ros import __version__
from dimm_ros.cli.console import note
from dimm_ros.config import preset_of
from dimm_ros.errors import DimmError
from dimm_ros.evaluation.report import table
from dimm_ros.scene_map import FORMAT_VERSION
from dimm_ros.whole_file import write_whole

ROOT = Path(__file__).resolve().parents[1]
PAGE, RUN, IMAGES = ROOT / "docs" / "tutorial.md", ROOT / "docs" / "tutorial.json", ROOT / "docs" / "images"
#: Which picture of a step's results folder the page shows, as images/tutorial_<step>.png.
PICTURES = {"doctor": "doctor.png", "eval": "trajectory.png", "stray": "trajectory.png"}
FIRST_LOOK = IMAGES / "first_look.png"
WIDTH = 110

_BLOCK = re.compile(r"(?P<mark><!-- (?P<what>run|printed by) (?P<name>\w+) -->\n)```\n(?P<text>.*?)```\n", re.DOTALL)
_REPLACES = {"gallery", "map", "convert"}  # verbs that refuse to replace a file without being told to


@dataclass(frozen=True)
class Step:
    """A marked block of commands.

    Attributes:
        name: of the block.
        commands: its lines.
        key: digest of these commands, those before them, and from the map on of ``parts``.
    """

    name: str
    commands: tuple[str, ...]
    key: str


def parts() -> dict[str, str]:
    """What figures of the page depend on beside its commands; the encoder's weights are named by the run's own
    figures.
    """
    preset = hashlib.sha256(preset_of("auto", "cpu").model_dump_json().encode()).hexdigest()
    return {"dimm_ros": __version__, "map format": str(FORMAT_VERSION), "default preset": preset[:16]}


def steps(page: str) -> list[Step]:
    """The page's marked commands, in its order."""
    found, digest = [], hashlib.sha256(__version__.encode())
    for block in _BLOCK.finditer(page):
        if block["what"] == "run":
            if "dimm map" in block["text"]:  # what comes before does not depend on it
                digest.update(json.dumps(parts()).encode())
            digest.update(block["text"].encode())
            found.append(Step(block["name"], tuple(block["text"].splitlines()), digest.hexdigest()[:16]))
    return found


def printed(page: str) -> Iterator[tuple[str, str]]:
    """Name and text of each block that is filled."""
    return ((block["name"], block["text"]) for block in _BLOCK.finditer(page) if block["what"] == "printed by")


def filled(page: str, runs: dict[str, dict]) -> str:
    """The page with what the runs printed."""

    def fill(block: re.Match) -> str:
        text = block["text"] if block["what"] == "run" else runs[block["name"]]["printed"]
        return f"{block['mark']}```\n{text}```\n"

    return _BLOCK.sub(fill, page)


def current(step: Step, runs: dict[str, dict]) -> bool:
    """Whether the step was run as the page has it, and its table would be printed in the same way today."""
    if runs.get(step.name, {}).get("key") != step.key:
        return False
    figures = runs[step.name].get("figures")
    if figures is None:
        return True
    title = runs[step.name]["printed"].partition("\n")[0]
    try:
        return runs[step.name]["printed"].startswith(drawn(title, figures))
    except KeyError:  # of a row that the table did not have then
        return False


def drawn(title: str, figures: dict) -> str:
    """The table of ``dimm eval`` as it is printed at the page's width."""
    paper = Console(file=StringIO(), width=WIDTH)
    paper.print(table(title, figures))
    return "\n".join(line.rstrip() for line in paper.file.getvalue().splitlines()) + "\n"


def execute(command: str, folder: Path) -> tuple[str, float, float]:
    """Run one ``dimm ...`` in a folder.

    Returns:
        What it printed on stdout, seconds, and the peak of its resident memory in MB.

    Raises:
        DimmError: it failed.
    """
    words = shlex.split(command)
    if words[0] != "dimm":
        raise DimmError(f"'{command}' is no dimm command; the tutorial's marked blocks hold nothing else.")
    extra = ["--overwrite"] if words[1] in _REPLACES else []
    environment = {
        **os.environ,
        "COLUMNS": str(WIDTH),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "dimm_ros.cli.main", *words[1:], *extra],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise DimmError(f"'{command}' ended with {process.returncode}; see above.")
    lines = "".join(f"{line.rstrip()}\n" for line in said.splitlines())
    return lines, time.monotonic() - began, usage.ru_maxrss / 1024


def perform(step: Step, folder: Path) -> dict:
    """Run a step's commands; its figures, and its picture as <folder>/<step>.png."""
    text, costs, latest = "", [], folder / "results" / "latest"
    for command in step.commands:
        note(f"$ {command}")
        said, seconds, peak = execute(command, folder)
        text = said  # of the last command, which is what the page shows
        costs.append({"command": command, "seconds": round(seconds, 1), "peak_mb": round(peak)})
    found: dict = {"key": step.key, "printed": text, "costs": costs}
    if step.name in PICTURES:
        shutil.copy(latest / PICTURES[step.name], folder / f"{step.name}.png")
    if step.commands[-1].startswith("dimm eval"):
        found["figures"] = json.loads((latest / "metrics.json").read_text(encoding="utf-8"))
    return found


def run_all(todo: Sequence[Step], folder: Path) -> dict[str, dict]:
    """Every step that the folder does not have yet, each kept as soon as it is done."""
    file = folder / "run.json"
    runs: dict[str, dict] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for step in todo:
        if not current(step, runs):
            runs[step.name] = perform(step, folder)
            put_json(runs, file)
    return {step.name: runs[step.name] for step in todo}


def draw_first_look(path: Path, map_file: Path, bag: Path) -> Path:
    """One image of a bag, the rays that a map predicts for its patches, and the poses of all its images beside the true
    ones.
    """
    import numpy as np

    from dimm_ros.data.open import open_recording
    from dimm_ros.localizer import Localizer
    from dimm_ros.pictures.plots import pyplot

    frames = open_recording(bag).frames
    localizer = Localizer.open(map_file).sampling_every_patch()
    estimates = [localizer.localize(frame.load(), frame.camera) for frame in frames]
    true = np.stack([frame.world_from_camera[:2, 3] for frame in frames])
    found = np.stack([one.world_from_camera[:2, 3] for one in estimates if one.accepted])
    shown = len(frames) // 3
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained", width_ratios=[4, 4, 4.4])
    axes[0].imshow(frames[shown].load())
    axes[0].set_title("one image")
    axes[1].imshow(np.nan_to_num(0.5 + 0.5 * estimates[shown].world_rays[..., :3], nan=0.5))
    axes[1].set_title("the ray of each patch: x, y, z of its direction")
    axes[2].plot(*true.T, color="0.35", linewidth=2, label="true path")
    axes[2].plot(*found.T, "o", color="tab:blue", markersize=4, label="a pose for each image")
    axes[2].plot(*estimates[shown].world_from_camera[:2, 3], "*", color="tab:red", markersize=13, label="of this image")
    axes[2].set(aspect="equal", xlabel="x [m]", ylabel="y [m]", title="from above")
    axes[2].legend(loc="center")
    for axis in axes[:2]:
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(
    folder: Annotated[Path, typer.Option("--folder", help="where bags, map and results are kept")] = ROOT
    / "results"
    / "tutorial",
) -> None:
    """Bring docs/tutorial.md, its run and its pictures up to date."""
    page = PAGE.read_text(encoding="utf-8")
    todo = steps(page)
    kept = json.loads(RUN.read_text(encoding="utf-8")) if RUN.is_file() else {"runs": {}}
    if not all(current(step, kept["runs"]) for step in todo):
        folder.mkdir(parents=True, exist_ok=True)
        runs = run_all(todo, folder)
        for name in PICTURES:
            shutil.copy(folder / f"{name}.png", IMAGES / f"tutorial_{name}.png")
        pictures = {name: digest_of(IMAGES / f"tutorial_{name}.png") for name in PICTURES}
        draw_first_look(FIRST_LOOK, folder / "gallery.dimm", folder / "second_bag")
        kept = {"parts": parts(), "machine": machine(["cpu"]), "pictures": pictures, "runs": runs}
        put_json(kept, RUN)
    # Read anew: its prose may have been edited meanwhile.
    write_whole(PAGE, filled(PAGE.read_text(encoding="utf-8"), kept["runs"]))
    note(f"{PAGE.relative_to(ROOT)} has the run of {kept['machine']['date'][:10]}")


if __name__ == "__main__":
    run(main)
