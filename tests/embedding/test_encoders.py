from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from noisyfit.embedding.encoders import (
    CLIP_MEAN,
    CLIP_STD,
    CLIPEmbedder,
    ContrastiveEmbedder,
    StandardizedFeatures,
)
from noisyfit.nn.input_layer import resized
from tests.helpers import images


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_standardized_features__are_centred_and_scaled() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    found = StandardizedFeatures().fit(x, generator()).embed(x)
    assert found.tolist() == [[-1, 0], [1, 0]]


def test_contrastive_embedder__separates_what_looks_different() -> None:
    X, y = images(60)
    x = torch.as_tensor(X).permute(0, 3, 1, 2)
    embedder = ContrastiveEmbedder(n_train_steps=15, batch_size=32).fit(x, generator())
    z = nn.functional.normalize(embedder.embed(x), dim=1)
    same = torch.as_tensor(y[:, None] == y)
    similarity = z @ z.T
    assert similarity[same].mean() > similarity[~same].mean() + 0.2
    torch.testing.assert_close(embedder.embed(x).mean(0), torch.zeros(128), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_clip_embedder__takes_an_object_or_a_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=16, patch_size=8, projection_dim=12,
    )  # fmt: skip
    model = transformers.CLIPVisionModelWithProjection(config)
    model.save_pretrained(tmp_path)
    x = torch.as_tensor(images(5)[0]).permute(0, 3, 1, 2)
    found = [
        CLIPEmbedder(source, image_size=16).fit(x, generator()).embed(x)
        for source in (model, tmp_path)
    ]
    assert found[0].shape == (5, 12)
    torch.testing.assert_close(*found)
    grey = CLIPEmbedder(model, image_size=16).fit(x, generator()).embed(x[:, :1])
    assert grey.shape == (5, 12)


class Pixels(nn.Module):
    """A model of open_clip whose features are its input."""

    def encode_image(self, x: Tensor) -> Tensor:
        return x.flatten(1)


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_clip_embedder__its_model_gets_images_of_its_size_on_its_scale(white: float) -> None:
    x = torch.rand(4, 3, 10, 12, generator=generator())
    embedder = CLIPEmbedder(Pixels(), image_size=16, value_range=(0, white))
    found = embedder.fit(x, generator()).embed(x * white).view(4, 3, 16, 16)
    for channel, (mean, std) in enumerate(zip(CLIP_MEAN, CLIP_STD, strict=True)):
        expected = (resized(x, 16)[:, channel] - mean) / std
        torch.testing.assert_close(found[:, channel], expected, rtol=1e-4, atol=1e-4)
    grey = embedder.embed(x[:, :1] * white)
    torch.testing.assert_close(grey, embedder.embed(x[:, :1].expand(-1, 3, -1, -1) * white))


def test_contrastive_embedder__network_that_may_be_pretrained__needs_no_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("noisyfit.nn.backbones.weights.find_spec", lambda name: None)
    x = torch.rand(8, 3, 32, 32, generator=generator())
    embedder = ContrastiveEmbedder("efficientnet_lite0", n_train_steps=1, batch_size=4)
    assert embedder.fit(x, generator()).embed(x).shape == (8, 1280)
