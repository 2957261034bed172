"""Map files of strangers: what they say is checked before it is believed, and what they are called commands nothing."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_maps import VIEWS, tiny_header, tiny_map
from typer.testing import CliRunner

import dimm_ros.whole_file
from dimm_ros.cli import console
from dimm_ros.cli.main import app
from dimm_ros.config import HeadConfig
from dimm_ros.errors import MapError
from dimm_ros.scene_map import Calibration, Curve, Part, SceneMap, SourceRecording, _empty_head, merged_head
from dimm_ros.whole_file import written_whole

EVIL = "a\x1b[31mb\x9b2J\u202ec\nd"


@pytest.fixture()
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.dimm"
    tiny_map().save(path)
    return path


def spoilt(
    path: Path, header: Callable[[dict], object] = lambda _: None, tensors: Callable[[dict], object] = lambda _: None
) -> Path:
    """The map with another header and other tensors."""
    with safe_open(str(path), "pt") as file:
        fields = json.loads(file.metadata()["dimm_map"])
    held = load_file(path)
    changed = header(fields)
    tensors(held)
    target = path.with_name("spoilt.dimm")
    save_file(held, target, {"dimm_map": changed if isinstance(changed, str) else json.dumps(fields)})
    return target


def test_a_map_comes_back_as_it_was_saved(tiny: Path) -> None:
    made, loaded = tiny_map(), SceneMap.load(tiny)
    assert loaded.header == made.header and not loaded.head.training
    for name, value in loaded.head.state_dict().items():
        assert value.dtype == torch.float32 and value.device.type == "cpu" and not value.requires_grad
        torch.testing.assert_close(value, made.head.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_the_mapped_poses_are_worked_out_once_and_cannot_be_changed() -> None:
    made = tiny_map()
    poses = made.mapped_poses()
    assert poses is made.mapped_poses() and len(poses) == VIEWS
    with pytest.raises(ValueError, match="read-only"):
        poses[0, 0, 3] = 1.0


def test_sizes_that_a_header_claims_take_no_memory(tiny: Path) -> None:
    """Legal sizes of a head mean up to 69 GB; these mean 2 GB, in a file of a few kB."""
    path = spoilt(tiny, lambda fields: fields["head"].update(mappers=16, width=4096, depth=2))
    assert path.stat().st_size < 40_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MapError, match="does not hold the head that its header describes"):
        SceneMap.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    # Whatever this process has taken before, which hides what is taken now:
    wide = tiny_header(head=HeadConfig(mappers=16, width=4096, depth=2))
    assert all(tensor.is_meta for tensor in _empty_head(wide, {}).state_dict().values())


def _set(**changes: object) -> Callable[[dict], object]:
    return lambda fields: fields.update(changes)


@pytest.mark.parametrize(
    "header",
    [
        _set(patch_dim=-1),
        _set(patch_dim=0),
        _set(patch_dim=10**12),
        _set(context_dim=-1),
        _set(context_dim=10**12),
        _set(patch_dim=10**400),
        _set(origin=(float("nan"), 0, 0)),
        _set(origin=(0, float("inf"), 0)),
        _set(radius=float("inf")),
        _set(radius=float("nan")),
        _set(calibration={"position_rate": float("inf")}),
        _set(calibration={"max_novelty": float("inf")}),
        _set(figures={"loss": float("nan")}),
        _set(curves=[{"name": "a", "points": [[10**400, 0.5]]}]),
        _set(format_version=float("inf")),
        _set(format_version=[]),
        _set(parts=3),
        _set(format_version=3, parts=[3]),
        _set(format_version=3, head=[]),
        _set(sources=[{"name": "a", "frames": -3}]),
        lambda _: "[]",
        lambda _: "null",
        lambda _: "3",
        lambda _: "[" * 100_000,
        lambda _: '{"format_version": ' + "[" * 100_000,
        lambda fields: fields["head"].update(whole_novelty=float("inf")),
    ],
)
def test_a_header_that_cannot_be_is_one_sentence(tiny: Path, header: Callable[[dict], object]) -> None:
    with pytest.raises(MapError, match="The header of map .* cannot be read .*; rebuild it with 'dimm map'") as caught:
        SceneMap.load(spoilt(tiny, header))
    assert "\n" not in str(caught.value)


def _shaped(name: str, *shape: int, dtype: torch.dtype = torch.float16) -> Callable[[dict], object]:
    return lambda tensors: tensors.update({name: torch.zeros(shape, dtype=dtype)})


@pytest.mark.parametrize(
    "tensors",
    [
        _shaped("whole.views"),
        _shaped("whole.basis"),
        _shaped("whole.basis", 24),
        _shaped("whole.spread", 0),
        _shaped("whole.spread", 1),
        _shaped("whole.views", 0, 5),
        _shaped("whole.views", 10**12, 0),
        _shaped("whole.views", 2**40, 0),
        _shaped("context_mean", 23),
        _shaped("context_mean", 24, dtype=torch.int64),
        _shaped("context_mean", 24, dtype=torch.complex64),
        _shaped("more", 3),
        lambda tensors: tensors.pop("context_mean"),
        lambda tensors: tensors.pop("whole.views"),
        lambda tensors: tensors.clear(),
    ],
)
def test_tensors_that_are_not_the_heads_are_one_sentence(tiny: Path, tensors: Callable[[dict], object]) -> None:
    with pytest.raises(MapError, match="does not hold the head that its header describes"):
        SceneMap.load(spoilt(tiny, tensors=tensors))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_one_sentence(tiny: Path, value: float) -> None:
    with pytest.raises(MapError, match="The weights of map .* are not all finite"):
        SceneMap.load(spoilt(tiny, tensors=lambda tensors: tensors["whole.weights"][0].fill_(value)))


def test_a_merged_map_without_its_parts_is_one_sentence(tmp_path: Path, tiny: Path) -> None:
    alone = tiny_map()
    part = Part(name="one", head=alone.header.head, origin=(0, 0, 0), radius=1.0)
    header = tiny_header(parts=(part, part))
    path = tmp_path / "merged.dimm"
    SceneMap(header, merged_head(header, [tiny_map().head, tiny_map().head])).save(path)
    assert len(SceneMap.load(path).head.parts) == 2
    with pytest.raises(MapError, match="lacks a whole-image part of one of its 2 maps"):
        SceneMap.load(spoilt(path, tensors=lambda tensors: tensors.pop("parts.1.whole.views")))
    with pytest.raises(MapError, match="cannot be read"):
        SceneMap.load(spoilt(path, lambda fields: fields["parts"][1].update(origin=(float("nan"), 0, 0))))


def test_the_log_says_what_is_left_out_of_an_older_map(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Up to format 5 a network told the whole image's rotation; without it the map answers otherwise."""
    SceneMap.load(tiny)
    assert caplog.text == ""
    older = spoilt(tiny, _set(format_version=5), _shaped("turn.0.weight", 3, 2))
    assert len(SceneMap.load(older).head.state_dict()) == len(load_file(tiny))
    assert "spoilt.dimm is of an earlier dimm_ros: its network for the whole image's rotation is left" in caplog.text


def test_what_a_map_is_called_does_not_command_a_terminal(tmp_path: Path) -> None:
    """Also for maps that another program wrote."""
    path = tmp_path / "evil.dimm"
    tiny_map().save(path)

    def evil(fields: dict) -> None:
        fields |= {
            name: EVIL for name in ("name", "frame_id", "created", "dimm_version", "encoder_sha256", "encoder_origin")
        }
        fields["encoder"]["name"] = EVIL
        fields["sources"] = [{"name": EVIL, "frames": 1, "licence": EVIL, "recorded": [EVIL, EVIL], "mapped": EVIL}]
        fields["curves"], fields["figures"] = [{"name": EVIL, "points": [[1, 2.0]]}], {EVIL: 1.0}

    path = spoilt(path, evil)
    header = SceneMap.load(path).header
    assert header.name == header.sources[0].licence == header.encoder.name == "a\ufffd[31mb\ufffd2J\ufffdc\ufffdd"
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]",
        header.model_dump_json().encode().decode("unicode_escape", errors="ignore"),
    )
    shown = CliRunner().invoke(app, ["map", "info", str(path)])
    assert (
        shown.exit_code == 0
        and "[31mb" in shown.output
        and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown.output)
    )


def test_what_is_not_in_a_header_does_not_command_a_terminal_either() -> None:
    assert str(MapError(f"The map {EVIL} is damaged.")) == "The map a\ufffd[31mb\ufffd2J\ufffdc\nd is damaged."
    told = CliRunner().invoke(app, ["map", "info", "absent\x1b[31m.dimm"])
    assert (
        told.exit_code == 1
        and "\x1b" not in told.stderr
        and "absent\ufffd[31m.dimm does not exist" in " ".join(told.stderr.split())
    )


def test_names_in_tables_lines_and_logs_do_not_either(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Topics and files of recordings, for instance."""
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.console.print(table)
    console.say(EVIL)
    console.note(EVIL)
    record = logging.LogRecord("dimm_ros", logging.WARNING, "", 0, "%s", (EVIL,), None)
    console._PlainLog(console=console.errors, show_time=False, show_path=False, show_level=False).emit(record)
    shown, beside = capsys.readouterr()
    assert shown.count("a\ufffd[31mb\ufffd2J\ufffdc") == 4 and beside.count("a\ufffd[31mb\ufffd2J\ufffdc") == 2
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown + beside)


def test_names_are_shown_in_plots_as_they_are(tmp_path: Path) -> None:
    """A dollar would begin a formula, which this is not."""
    path = tmp_path / "map.dimm"
    curves = tuple(Curve(name=name, points=((1, 2.0), (2, 1.0))) for name in ("a$x^$b", "_hidden", r"\frac$\frac$"))
    tiny_map(curves=curves, sources=(SourceRecording(name="$^$", frames=5),)).save(path)
    told = CliRunner().invoke(app, ["map", "report", str(path), "-o", str(tmp_path / "map.html")])
    assert told.exit_code == 0, told.output
    assert (tmp_path / "map.html").read_text().count("data:image/png") == 2


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut may leave an empty file in place of a good one."""
    path, done = tmp_path / "map.dimm", []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(
        dimm_ros.whole_file.os, "fsync", lambda handle: (done.append(os.fstat(handle).st_ino), fsync(handle))
    )
    monkeypatch.setattr(dimm_ros.whole_file.os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    tiny_map().save(path)
    assert done == [path.stat().st_ino, "replace", tmp_path.stat().st_ino]
    with pytest.raises(RuntimeError), written_whole(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["map.dimm"] and SceneMap.load(path).header.name == "tiny"


def test_calibrations_hold_numbers() -> None:
    with pytest.raises(ValueError, match="finite number"):
        Calibration(position_rate=float("inf"))
