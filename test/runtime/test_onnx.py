"""The exported network: the same poses as PyTorch's, and nothing loaded that is not of the map."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from typer.testing import CliRunner

from dimm_ros.atlas import Atlas
from dimm_ros.cli.main import app
from dimm_ros.config import SolverConfig
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Frame
from dimm_ros.encoder.dinov2 import cell_weights
from dimm_ros.errors import InputError, MapError
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.localizer import Localizer
from dimm_ros.runtime.export import export_map
from dimm_ros.runtime.onnx_network import choose_providers, network_path
from dimm_ros.scene_map import SceneMap

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'onnx')")


@pytest.fixture(scope="module")
def exported(small_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small map with its network beside it."""
    path = Path(shutil.copy(small_map, tmp_path_factory.mktemp("exported")))
    export_map(path)
    return path


@pytest.fixture(scope="module")
def pair(exported: Path) -> tuple[Localizer, Localizer]:
    """PyTorch's localizer and ONNX Runtime's."""
    return Localizer.open(exported, device="cpu"), Localizer.open(exported, device="cpu", backend="onnx")


@pytest.fixture(scope="module")
def frames(walk: Path) -> Sequence[Frame]:
    return open_recording(walk).frames


def assert_same_pose(one: np.ndarray, other: np.ndarray) -> None:
    distance, angle = pose_errors(one, other)
    assert distance < 1e-3 and angle < 0.01


def test_poses_are_the_same(pair: tuple[Localizer, Localizer], frames: Sequence[Frame]) -> None:
    for frame in frames[::4]:
        torchs, onnxs = (localizer.localize(frame.load(), frame.camera) for localizer in pair)
        assert_same_pose(torchs.world_from_camera, onnxs.world_from_camera)
        np.testing.assert_allclose(onnxs.covariance, torchs.covariance, rtol=0.02, atol=1e-9)
        np.testing.assert_allclose(onnxs.cls, torchs.cls, atol=1e-3)
        assert onnxs.novelty == pytest.approx(torchs.novelty, abs=1e-3)
        assert (onnxs.accepted, onnxs.reason) == (torchs.accepted, torchs.reason)
        assert set(onnxs.stage_ms) == set(torchs.stage_ms) and onnxs.stage_ms["head"] == 0.0 < onnxs.stage_ms["encode"]


def test_any_number_and_size_of_images(pair: tuple[Localizer, Localizer], frames: Sequence[Frame]) -> None:
    """One graph serves every camera: three images of one size in one batch, and one with an odd number of patches."""
    camera = frames[0].camera
    images = [frames[3].load(), frames[9].load(), frames[12].load(), frames[6].load()[:137, :213]]
    cameras = [camera] * 3 + [Camera(213, 137, camera.fx, camera.fy, camera.cx, camera.cy)]
    for torchs, onnxs in zip(*(localizer.observe_all(images, cameras) for localizer in pair), strict=True):
        assert torchs.rays.directions.shape == onnxs.rays.directions.shape
        torch.testing.assert_close(onnxs.rays.directions, torchs.rays.directions, atol=1e-4, rtol=0)
        torch.testing.assert_close(onnxs.rays.moments, torchs.rays.moments, atol=1e-4, rtol=0)
        torch.testing.assert_close(onnxs.rays.direction_scale, torchs.rays.direction_scale, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(onnxs.context, torchs.context, atol=1e-3, rtol=0)


def test_thinned_grids(pair: tuple[Localizer, Localizer], frames: Sequence[Frame]) -> None:
    torchs, onnxs = (
        Localizer(one.map, one.encoder, SolverConfig(rays=96)).localize(frames[8].load(), frames[8].camera)
        for one in pair
    )
    assert_same_pose(torchs.world_from_camera, onnxs.world_from_camera)
    assert torchs.rays == onnxs.rays == 96
    np.testing.assert_allclose(torchs.world_rays, onnxs.world_rays, atol=1e-3)


def test_unknown_focal_length(pair: tuple[Localizer, Localizer], frames: Sequence[Frame]) -> None:
    (_, torchs), (_, onnxs) = (localizer.localize_unknown_focal(frames[8].load()) for localizer in pair)
    assert onnxs.fx == pytest.approx(torchs.fx, rel=1e-3)


@pytest.mark.long
def test_eight_bits_cost_little(
    exported: Path, pair: tuple[Localizer, Localizer], frames: Sequence[Frame], tmp_path: Path
) -> None:
    map_path = tmp_path / exported.name
    map_path.write_bytes(exported.read_bytes())
    path = export_map(map_path, precision="int8")
    assert path == network_path(map_path) and path.stat().st_size < 0.6 * network_path(exported).stat().st_size
    eight = Localizer.open(map_path, device="cpu", backend="onnx")
    assert eight.encoder.exported.precision == "int8" and "int8" in eight.encoder.weights.origin
    errors = [
        pose_errors(
            *(localizer.localize(frame.load(), frame.camera).world_from_camera for localizer in (pair[0], eight))
        )
        for frame in frames[::4]
    ]
    distance, angle = np.median(errors, axis=0)
    assert 1e-6 < distance < 0.03 and angle < 1.0


def test_an_atlas_of_networks(exported: Path, frames: Sequence[Frame]) -> None:
    atlas = Atlas.open([str(exported)], device="cpu", backend="onnx")
    localizer, estimate = atlas.localize(lambda one: one.localize(frames[8].load(), frames[8].camera))
    assert localizer.encoder.provider == "CPUExecutionProvider" and estimate.accepted and atlas.encoders == {}


def test_a_head_without_confidence_nor_global_pose(exported: Path, frames: Sequence[Frame], tmp_path: Path) -> None:
    whole = SceneMap.load(exported)
    header = whole.header.model_copy(update={"head": whole.header.head.changed(confidence=False, fusion="mean")})
    from dimm_ros.head.model import MapHead

    torch.manual_seed(0)
    SceneMap(header, MapHead(header.patch_dim, header.context_dim, header.head), whole.landmarks).save(
        tmp_path / "plain.dimm"
    )
    export_map(tmp_path / "plain.dimm")
    torchs, onnxs = (
        Localizer.open(tmp_path / "plain.dimm", device="cpu", backend=backend).observe(
            frames[0].load(), frames[0].camera
        )
        for backend in ("torch", "onnx")
    )
    assert onnxs.rays.direction_scale is None and onnxs.rays.moment_scale is None and onnxs.rays.novelty is None
    torch.testing.assert_close(onnxs.rays.directions, torchs.rays.directions, atol=1e-4, rtol=0)


def _of_another_map(path: Path) -> None:
    scene_map = SceneMap.load(path)
    scene_map.header = scene_map.header.model_copy(update={"name": "another"})
    scene_map.save(path)


def _changed(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        model = onnx.load(network_path(path))
        change(model)
        network_path(path).write_bytes(model.SerializeToString())

    return spoil


def _leave(tensor: TensorProto) -> None:
    """A constant's numbers are in another file."""
    tensor.ClearField("raw_data")
    tensor.data_type, tensor.dims[:] = TensorProto.FLOAT, [1]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"


def _external(model: onnx.ModelProto) -> None:
    _leave(model.graph.initializer[0])


def _constant(holder: onnx.GraphProto | onnx.FunctionProto) -> onnx.AttributeProto:
    """The attribute of a new constant."""
    node = holder.node.add(op_type="Constant", output=["stolen"])
    return node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)


def _external_in_sparse_constant(model: onnx.ModelProto) -> None:
    attribute = _constant(model.graph)
    attribute.name, attribute.type = "sparse_value", onnx.AttributeProto.SPARSE_TENSOR
    attribute.sparse_tensor.dims[:] = [1]
    _leave(attribute.sparse_tensor.values)


def _external_in_sparse_initializer(model: onnx.ModelProto) -> None:
    _leave(model.graph.sparse_initializer.add().indices)


def _function(model: onnx.ModelProto, domain: str) -> onnx.FunctionProto:
    return model.functions.add(
        name="Stolen", domain=domain, output=["stolen"], opset_import=[helper.make_opsetid("", 17)]
    )


def _external_in_function(model: onnx.ModelProto) -> None:
    _leave(_constant(_function(model, "ai.onnx")).t)


def _external_in_branch(model: onnx.ModelProto) -> None:
    branch = model.graph.node.add(op_type="If").attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
    _leave(_constant(branch.g).t)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: network_path(path).unlink(), "does not exist"),
        (lambda path: network_path(path).write_bytes(b"not a network"), "is damaged or not an ONNX file"),
        (
            lambda path: network_path(path).write_bytes(network_path(path).read_bytes()[:100_000]),
            "is damaged or not an ONNX file",
        ),
        (_of_another_map, "was exported from another map than room.dimm is now"),
        (_changed(lambda model: model.ClearField("metadata_props")), "was not written by 'dimm export'"),
        (_changed(lambda model: setattr(model.metadata_props[0], "value", "{}")), "cannot be read"),
        (_changed(lambda model: setattr(model.metadata_props[0], "value", '{"format_version": 7}')), "has format 7"),
        (_changed(_external), "refers to other files"),
        (_changed(lambda model: model.opset_import.append(helper.make_opsetid("evil.ops", 1))), "foreign operators"),
        (_changed(_external_in_sparse_constant), "refers to other files"),
        (_changed(_external_in_sparse_initializer), "refers to other files"),
        (_changed(_external_in_function), "refers to other files"),
        (_changed(_external_in_branch), "refers to other files"),
        (_changed(lambda model: _function(model, "evil.ops")), "foreign operators"),
        (
            _changed(lambda model: _function(model, "").opset_import.append(helper.make_opsetid("evil.ops", 1))),
            "foreign operators",
        ),
        (_changed(lambda model: model.graph.node.add(op_type="Evil", domain="evil.ops")), "foreign operators"),
        (
            _changed(lambda model: model.graph.node.add(op_type="EPContext", domain="com.microsoft")),
            "refers to other files",
        ),
        (
            _changed(lambda model: setattr(model.metadata_props[0], "value", '{"format_version": 1e400}')),
            "cannot be read",
        ),
        (_changed(lambda model: setattr(model.metadata_props[0], "value", "[" * 100_000)), "cannot be read"),
        (_changed(lambda model: setattr(model.graph.node[0], "op_type", "NoSuchOperator")), "ONNX Runtime cannot load"),
        (
            _changed(lambda model: setattr(model.graph.output[1], "name", "cls")),
            "ONNX Runtime cannot load|inputs and outputs",
        ),
    ],
)
def test_what_is_not_the_maps_network_is_refused(
    exported: Path, tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    path = tmp_path / "room.dimm"
    for source, target in ((exported, path), (network_path(exported), network_path(path))):
        target.write_bytes(source.read_bytes())
    spoil(path)
    with pytest.raises(MapError, match=sentence) as caught:
        Localizer.open(path, device="cpu", backend="onnx")
    assert "dimm export" in str(caught.value) and "\n" not in str(caught.value)


def test_providers() -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    cpu, cuda = torch.device("cpu"), torch.device("cuda:1")
    on_cuda = ("CUDAExecutionProvider", {"device_id": "1"})
    assert choose_providers("auto", cpu, available) == ["CPUExecutionProvider"]
    assert choose_providers("auto", cuda, available) == [on_cuda, "CPUExecutionProvider"]
    assert choose_providers("auto", cuda, available[2:]) == ["CPUExecutionProvider"]
    assert choose_providers("tensorrt", cuda, available) == [
        ("TensorrtExecutionProvider", {"device_id": "1"}),
        on_cuda,
        "CPUExecutionProvider",
    ]
    with pytest.raises(InputError, match="This ONNX Runtime has no cuda provider; install onnxruntime-gpu"):
        choose_providers("cuda", cpu, available[2:])
    with pytest.raises(InputError, match="The ONNX provider 'gpu' is not known; choose auto, cpu, cuda, tensorrt"):
        choose_providers("gpu", cpu, available)


def test_what_is_not_installed_or_known_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="The back end 'tflite' is not known; choose torch or onnx"):
        Localizer.open(exported, device="cpu", backend="tflite")
    with pytest.raises(InputError, match="The precision 'int4' is not known; choose fp32 or int8"):
        export_map(exported, precision="int4")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="needs ONNX Runtime: pip install onnxruntime"):
        Localizer.open(exported, device="cpu", backend="onnx")


def test_the_verb_writes_where_it_is_told(exported: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(exported), "-o", str(tmp_path / "networks")])
    assert result.exit_code == 0, result.output
    target = tmp_path / "networks" / network_path(exported).name
    assert target.read_bytes()[:4] == network_path(exported).read_bytes()[:4] and target.name in result.output.replace(
        "\n", ""
    )
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(("rows", "columns", "grid"), [(12, 16, 1), (12, 16, 2), (9, 13, 2), (27, 36, 4)])
def test_cell_weights_average_as_adaptive_pooling_does(rows: int, columns: int, grid: int) -> None:
    image = torch.rand(1, 5, rows, columns, dtype=torch.float64)
    expected = [image.mean(dim=(2, 3))[0, None]]
    if grid > 1:
        expected.append(torch.nn.functional.adaptive_avg_pool2d(image, grid)[0].flatten(1).T)
    weights = torch.from_numpy(cell_weights(rows, columns, grid)).double()
    torch.testing.assert_close(weights @ image[0].flatten(1).T, torch.cat(expected), atol=1e-6, rtol=0)


def test_verbs_take_the_back_end(exported: Path, frames: Sequence[Frame], tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "view.png"), frames[8].load()[..., ::-1])
    command = ["localize", str(exported), str(tmp_path / "view.png"), "--focal", "150", "--json"]
    torchs, onnxs = (
        json.loads(CliRunner().invoke(app, [*command, "--backend", backend]).stdout) for backend in ("torch", "onnx")
    )
    np.testing.assert_allclose(onnxs["translation"], torchs["translation"], atol=1e-3)
    (tmp_path / "alone.dimm").write_bytes(exported.read_bytes())
    result = CliRunner().invoke(app, ["localize", str(tmp_path / "alone.dimm"), *command[2:], "--backend", "onnx"])
    assert result.exit_code == 1 and "dimm export alone.dimm" in " ".join(result.stderr.split())
