"""The benchmarks run, and keep their figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_benchmark_prints_a_table_and_keeps_its_figures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "solver_speed", "--no-gpu", "--results", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".json" and file.name in "".join(result.stdout.split())
    figures = json.loads(file.read_text())
    assert {"date", "processor", "cores", "load", "torch", "threads"} == set(figures["machine"])
    rows = figures["benchmarks"]["solver_speed"]
    assert [(row["device"], row["rays"]) for row in rows] == [("cpu", 768), ("cpu", 972)]
    assert all(0 < row["median"] <= row["90th percentile"] for row in rows)
    assert f"{rows[0]['median']:.2f}" in result.stdout or rows[0]["median"] >= 10
