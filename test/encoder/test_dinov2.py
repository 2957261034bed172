"""The frozen encoder with its real weights."""

from __future__ import annotations

import pytest
import torch

from dimm_ros.config import EncoderConfig
from dimm_ros.encoder import dinov2
from dimm_ros.encoder.dinov2 import Encoder, _load
from dimm_ros.encoder.weights import MODELS
from dimm_ros.errors import WeightsError


def test_tokens_have_the_shape_of_the_patch_grid(encoder: Encoder) -> None:
    tokens = encoder.encode(torch.zeros(2, 3, 84, 112))
    assert (
        tokens.patches.shape == (2, 6 * 8, 384)
        and tokens.cls.shape == (2, 384)
        and tokens.context.shape == (2, (1 + 3 * 5) * 384)
    )


def test_a_view_gives_the_same_tokens_alone_and_in_a_batch(encoder: Encoder) -> None:
    images = torch.randn(2, 3, 84, 112, generator=torch.Generator().manual_seed(0))
    together, alone = encoder.encode(images), encoder.encode(images[1:])
    torch.testing.assert_close(together.patches[1:], alone.patches, atol=1e-3, rtol=1e-3)


def test_the_last_layer_is_what_transformers_itself_returns(encoder: Encoder) -> None:
    image = torch.randn(1, 3, 84, 112, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        reference = _load("dinov2-small", encoder.weights.path)(image.to(encoder.device)).last_hidden_state
    tokens = encoder.encode(image)
    torch.testing.assert_close(tokens.patches.float(), reference[:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokens.cls.float(), reference[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokens.context[:, :384], tokens.cls)
    whole, parts = tokens.context[:, -5 * 384 : -4 * 384], tokens.context[:, -4 * 384 :].unflatten(1, (4, 384))
    torch.testing.assert_close(whole.float(), reference[:, 1:].mean(dim=1), atol=1e-4, rtol=1e-4)
    upper_right = reference[:, 1:].unflatten(1, (6, 8))[:, :3, 4:].mean(dim=(1, 2))
    torch.testing.assert_close(parts[:, 1].float(), upper_right, atol=1e-4, rtol=1e-4)


def test_stacked_layers_end_with_the_last_one(encoder: Encoder) -> None:
    image = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    stacked = Encoder(EncoderConfig(layers=(6, 12)), encoder.weights, encoder.device)
    tokens = stacked.encode(image)
    assert stacked.dim == 768 and tokens.patches.shape[-1] == 768
    torch.testing.assert_close(tokens.patches[..., 384:], encoder.encode(image).patches)
    assert not torch.allclose(tokens.patches[..., :384], tokens.patches[..., 384:])


def test_a_layer_that_does_not_exist_is_refused(encoder: Encoder) -> None:
    with pytest.raises(WeightsError, match="layers 1 to 12"):
        Encoder(EncoderConfig(layers=(13,)), encoder.weights, encoder.device)


@pytest.mark.parametrize("name", MODELS)
def test_every_variant_runs(name: str, tmp_path) -> None:
    """Shapes of all variants with random weights, saved and loaded through the published names."""
    from safetensors.torch import save_file
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    from dimm_ros.encoder.weights import Weights

    spec = MODELS[name]
    if spec.dim > 768:
        pytest.skip("1.2 GB of random weights; the base variant covers the code")
    shape = dict(
        hidden_size=spec.dim,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        image_size=518,
        patch_size=14,
    )
    if spec.registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=spec.registers, **shape))
    else:
        model = Dinov2Model(Dinov2Config(**shape))
    file = tmp_path / "model.safetensors"
    save_file(model.state_dict(), file)
    loaded = Encoder(EncoderConfig(name=name), Weights(file, "", "random"), torch.device("cpu"))
    tokens = loaded.encode(torch.zeros(1, 3, 56, 70))
    assert tokens.patches.shape == (1, 20, spec.dim)


@pytest.mark.parametrize("name", ["dinov2-base", "dinov2-small-registers"])
def test_weights_of_another_model_are_refused(name: str, encoder: Encoder) -> None:
    with pytest.raises(WeightsError, match=f"is not a {name}"):
        _load(name, encoder.weights.path)


def test_many_images_are_encoded_in_bfloat16_where_the_processor_multiplies_in_it(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dinov2, "_has_bfloat16_matrices", lambda: False)
    assert encoder.for_many() is encoder
    monkeypatch.setattr(dinov2, "_has_bfloat16_matrices", lambda: True)
    faster = encoder.for_many()
    assert encoder.dtype == torch.float32 and faster.for_many() is faster
    images = torch.randn(1, 3, 70, 84, generator=torch.Generator().manual_seed(0))
    ones, others = encoder.encode(images), faster.encode(images)
    for name in ("patches", "context", "cls"):
        exact, rounded = getattr(ones, name), getattr(others, name)
        assert rounded.dtype == torch.bfloat16
        assert 0 < (rounded.float() - exact).norm() / exact.norm() < 0.03
