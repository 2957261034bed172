"""What every benchmark shares: the machine it ran on, the table, the JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import torch
import typer
from rich import box
from rich.table import Table

from dimm_ros.cli.console import EXIT_ERROR, errors
from dimm_ros.errors import DimmError
from dimm_ros.whole_file import write_whole

#: A row of figures: column name -> text or number. All rows of a benchmark have the same columns.
Row = dict[str, str | int | float]


def run(main: Callable) -> None:
    """A benchmark's command line; what goes wrong is one sentence."""
    try:
        typer.run(main)
    except DimmError as error:
        errors.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise SystemExit(EXIT_ERROR) from None


def machine(devices: Sequence[str]) -> dict[str, str | int | float]:
    """What a time depends on: processors, threads, versions, and how busy the machine is already."""
    facts = {
        "date": datetime.now().isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if "cuda" in devices:
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def table(title: str, rows: Sequence[Row]) -> Table:
    """Rows as a table."""
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in rows[0]:
        result.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        result.add_row(*(_digits(value) if isinstance(value, float) else str(value) for value in row.values()))
    return result


def write_json(figures: dict, folder: Path) -> Path:
    """Write <folder>/<date>.json whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    return put_json(figures, folder / f"{datetime.now():%Y%m%d-%H%M%S}.json")


def put_json(content: object, path: Path) -> Path:
    """Write a JSON file whole or not at all."""
    return write_whole(path, json.dumps(content, indent=1) + "\n")


class Store:
    """Figures by key in one JSON file, written whole after each; several runs may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def figures(self) -> dict[str, dict]:
        """All that is stored now."""
        return json.loads(self._path.read_text(encoding="utf-8")) if self._path.is_file() else {}

    def put(self, key: str, figures: dict) -> None:
        """Keep the figures of a key."""
        put_json(self.figures | {key: figures}, self._path)


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
