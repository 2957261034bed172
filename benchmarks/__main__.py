"""``python -m benchmarks [NAME ...]``: time the localizer on this machine; every device that torch sees takes part."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads: as the dimm command and the node run

from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402

from benchmarks import localize_speed, solver_speed  # noqa: E402
from benchmarks.report import machine, run, table, write_json  # noqa: E402
from dimm_ros.cli.console import console  # noqa: E402
from dimm_ros.encoder.dinov2 import choose_device  # noqa: E402
from dimm_ros.errors import InputError  # noqa: E402

BENCHMARKS = {module.NAME: module for module in (localize_speed, solver_speed)}


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="which to run; all of them by default", show_default=False),
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="say what there is, and stop")] = False,
    gpu: Annotated[bool, typer.Option("--gpu/--no-gpu", help="time the GPU too")] = choose_device().type == "cuda",
    results: Annotated[Path, typer.Option(help="where the figures are kept as JSON")] = Path("results/bench"),
) -> None:
    """Time the localizer and its parts, print the figures and keep them."""
    if show_list:
        for module in BENCHMARKS.values():
            console.print(f"{module.NAME}: {module.TITLE}", highlight=False)
        return
    unknown = set(names or ()) - set(BENCHMARKS)
    if unknown:
        raise InputError(f"There is no benchmark '{sorted(unknown)[0]}'; choose from {', '.join(BENCHMARKS)}.")
    devices = ["cpu", "cuda"] if gpu else ["cpu"]
    figures: dict = {"machine": machine(devices), "benchmarks": {}}
    console.print(
        ", ".join(f"{key} {value}" for key, value in figures["machine"].items()), highlight=False, soft_wrap=True
    )
    for name in names or BENCHMARKS:
        rows = BENCHMARKS[name].run(devices)
        figures["benchmarks"][name] = rows
        console.print(table(BENCHMARKS[name].TITLE, rows))
    console.print(f"figures: {write_json(figures, results)}", highlight=False, soft_wrap=True)


run(main)
