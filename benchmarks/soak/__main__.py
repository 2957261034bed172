"""``python -m benchmarks.soak``: 20 minutes of faults; figures as JSON, a table, and status 1 when a check fails."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads

import json  # noqa: E402
import random  # noqa: E402
import tempfile  # noqa: E402
from datetime import datetime  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.report import run  # noqa: E402
from benchmarks.soak.prepare import make_maps, second_of  # noqa: E402
from benchmarks.soak.run import Soak  # noqa: E402
from dimm_ros.cli.console import console  # noqa: E402
from dimm_ros.whole_file import write_whole  # noqa: E402


def main(
    seconds: Annotated[float, typer.Option(help="how long")] = 1200.0,
    seed: Annotated[
        int | None,
        typer.Option(help="of the faults' order and times; another one every time by default", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="shortest faults")] = False,
    recording: Annotated[
        Path | None, typer.Option(help="what the camera shows; the gallery by default", show_default=False)
    ] = None,
    scene_map: Annotated[
        Path | None, typer.Option("--map", help="a map of the recording; made from it by default", show_default=False)
    ] = None,
    results: Annotated[Path, typer.Option(help="where the figures are kept as JSON")] = Path("results/soak"),
) -> None:
    """Soak the localizer."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    console.print(f"seed {seed}", highlight=False)
    with tempfile.TemporaryDirectory(prefix="dimm_soak_") as folder:
        work = Path(folder)
        if recording is None or scene_map is None:
            recording, scene_map = make_maps(work, recording)
        soak = Soak(recording, scene_map, second_of(scene_map, work), work)
        try:
            figures = soak.run(seconds, seed, quick=quick, progress=_line)
        finally:
            results.mkdir(parents=True, exist_ok=True)
            log = work / "localizer.log"
            if log.exists():
                (results / "localizer.log").write_bytes(log.read_bytes())
    file = results / f"{datetime.now():%Y%m%d-%H%M%S}_soak.json"
    write_whole(file, json.dumps(figures, indent=2) + "\n")
    console.print(_table(figures))
    for check, holds in figures["checks"].items():
        console.print(f"{'[green]holds[/]' if holds else '[bold red]FAILS[/]'}  {check}", highlight=False)
    console.print(f"memory {figures['memory_mb']}\nfigures: {file}", highlight=False, soft_wrap=True)
    if not all(figures["checks"].values()):
        raise SystemExit(1)


def _line(incident) -> None:
    again = "never" if incident.recovery_s is None else f"after {incident.recovery_s:.2f} s"
    console.print(
        f"{incident.fault.name:18} answers again {again}; {incident.named_by or '[bold red]not named[/]'}",
        highlight=False,
        soft_wrap=True,
    )


def _table(figures: dict) -> Table:
    table = Table(
        title=f"{figures['faults_in_all']} faults in {figures['seconds']:.0f} s, seed {figures['seed']}",
        title_justify="left",
    )
    for heading in ("fault", "times", "named", "answers again after, median", "at most"):
        table.add_column(heading)
    for name, row in figures["faults"].items():
        table.add_row(
            name, str(row["times"]), str(row["named"]), f"{row['recovery_s_median']} s", f"{row['recovery_s_max']} s"
        )
    return table


run(main)
