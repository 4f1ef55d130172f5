"""Diffusion by its formulas, edges, ControlNet with a tiny pipeline, and the store of rows."""

from __future__ import annotations

import warnings
from math import cos, sin
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from noisyfit import EchoSelect, NoisyFitWarning
from noisyfit.nn.generators import ConditionalDiffusion, ControlNetGenerator
from noisyfit.nn.generators.denoisers import TableDenoiser, UNet
from noisyfit.nn.generators.edges import canny, edge_map
from noisyfit.nn.generators.row_store import RowStore
from tests.helpers import full_disk, images


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Diffusion.


class Velocity(nn.Module):
    """The exact velocity of rows that are normal, around a mean that depends on the label."""

    def __init__(self, means: list[float]) -> None:
        super().__init__()
        self.means = torch.tensor(means)

    def forward(self, z: Tensor, angle: Tensor, labels: Tensor) -> Tensor:
        c, s = angle.cos()[:, None], angle.sin()[:, None]
        mean = self.means[labels][:, None]
        clean = c * z + s**2 * mean  # E[x | z] for unit variance
        noise = s * (z - c * mean)
        return c * noise - s * clean


def exact(means: list[float], **params: Any) -> ConditionalDiffusion:
    diffusion = ConditionalDiffusion(**params)
    diffusion.classes_ = np.array(["a", "b"])
    diffusion.mean_ = torch.zeros(1, 1)
    diffusion.scale_ = torch.ones(1, 1)
    diffusion.low_, diffusion.high_ = torch.full((1, 1), -9.0), torch.full((1, 1), 9.0)
    diffusion.kind_ = "mlp"
    diffusion.network_ = Velocity(means)
    return diffusion


def test_modify__without_guidance_or_difference__gives_the_row_back() -> None:
    x = torch.randn(9, 1, generator=generator())
    labels = np.array(["a"] * 4 + ["b"] * 5)
    for means, guidance in (([-1.0, 1.0, 0.0], 0.0), ([0.0, 0.0, 0.0], 5.0)):
        found = exact(means, guidance=guidance, n_steps=200).modify(x, labels, generator())
        torch.testing.assert_close(found, x, atol=0.05, rtol=0)


def test_modify__under_its_label__moves_by_the_difference_of_the_means() -> None:
    """For normals of equal variance the path under a label is shifted by the label's mean."""
    x = torch.randn(6, 1, generator=generator())
    labels = np.array(["a", "b"] * 3)
    diffusion = exact([-1.0, 2.0, 0.0], guidance=1.0, strength=1.0, n_steps=400)
    found = diffusion.modify(x, labels, generator())
    torch.testing.assert_close(found, x + torch.tensor([-1.0, 2.0] * 3)[:, None], atol=0.05, rtol=0)


def test_step__is_ddim_written_out() -> None:
    diffusion = exact([-1.0, 2.0, 0.5], guidance=3.0)
    z, a, b = torch.tensor([[0.3]]), 0.7, 0.4
    found = float(diffusion._step(z, a, b, torch.tensor([1]), ()))
    velocities = {}
    for name, mean in (("label", 2.0), ("none", 0.5)):
        clean = cos(a) * 0.3 + sin(a) ** 2 * mean
        noise = sin(a) * (0.3 - cos(a) * mean)
        velocities[name] = cos(a) * noise - sin(a) * clean
    velocity = velocities["none"] + 3 * (velocities["label"] - velocities["none"])
    clean = cos(a) * 0.3 - sin(a) * velocity
    noise = sin(a) * 0.3 + cos(a) * velocity
    assert found == pytest.approx(cos(b) * clean + sin(b) * noise, abs=1e-5)


def test_loss__of_the_exact_network__is_the_variance_of_the_velocity() -> None:
    x = torch.randn(20000, 1, generator=generator())
    torch.manual_seed(1)
    diffusion = exact([0.0, 0.0, 0.0])
    labels = torch.zeros(len(x), dtype=torch.long)
    # For unit normals z says nothing about the velocity, whose variance is 1.
    assert float(diffusion._loss(diffusion.network_, x, labels)) == pytest.approx(1, abs=0.05)


def test_strength__trades_alignment_against_the_instance() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = torch.as_tensor(rng.normal(size=(200, 4)) + 4 * y[:, None], dtype=torch.float32)
    aligned, kept = [], []
    for strength in (0.2, 0.95):
        diffusion = ConditionalDiffusion(strength, 2.0, n_train_steps=150, width=64)
        moved = diffusion.fit(x, y, generator()).modify(x, 1 - y, generator())
        aligned.append(float(((moved.mean(1) > 2).numpy() == (1 - y)).mean()))
        kept.append(float((moved - x).norm(dim=1).mean()))
    assert aligned[1] > max(0.8, aligned[0])
    assert kept[0] < kept[1]


def test_fit__global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    ConditionalDiffusion(n_train_steps=2, width=8).fit(
        torch.randn(9, 2, generator=generator()), np.arange(9) % 2, generator()
    )
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "name, value", [("strength", 1.5), ("n_steps", 0), ("n_train_steps", 0), ("control", "lines")]
)
def test_parameters__out_of_range__are_named(name: str, value: Any) -> None:
    with pytest.raises(
        ValueError, match=f"'{name}' parameter of ConditionalDiffusion.*Got {value!r}"
    ):
        ConditionalDiffusion(**{name: value}).fit(torch.zeros(4, 2), np.arange(4), generator())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 11), (4, 28, 28)])
def test_unet__any_size__keeps_the_shape(shape: tuple[int, ...]) -> None:
    network = UNet(shape[0], 3, width=8, n_controls=shape[0])
    x = torch.randn(2, *shape)
    out = network(x, torch.zeros(2), torch.tensor([0, 3]), x)
    assert out.shape == x.shape
    assert (out == 0).all()  # starts at zero


@pytest.mark.parametrize(
    "shape, params, kind",
    [
        ((2000,), {}, "mlp"),
        ((1, 28, 28), {}, "mlp"),
        ((1, 28, 28), {"network": "unet"}, "unet"),
        ((1, 28, 28), {"control": "edges"}, "unet"),
        ((3, 32, 32), {}, "unet"),
    ],
)
def test_network__is_chosen_by_the_size_of_a_row(
    shape: tuple[int, ...], params: dict[str, Any], kind: str
) -> None:
    x = torch.randn(6, *shape, generator=generator())
    labels = np.arange(6) % 2
    diffusion = ConditionalDiffusion(n_train_steps=1, n_steps=1, width=8, **params)
    found = diffusion.fit(x, labels, generator()).modify(x, labels, generator())
    assert diffusion.kind_ == kind
    assert found.shape == x.shape


def test_denoiser__label_and_angle_matter() -> None:
    network = TableDenoiser(3, 2, width=8).eval()
    last: Any = network.last[1]
    nn.init.normal_(last.weight)
    x = torch.ones(1, 3)
    first = network(x, torch.tensor([0.1]), torch.tensor([0]))
    assert not torch.allclose(first, network(x, torch.tensor([0.1]), torch.tensor([1])))
    assert not torch.allclose(first, network(x, torch.tensor([1.1]), torch.tensor([0])))


# Edges.


def test_edge_map__of_a_step__is_half_on_both_sides() -> None:
    x = torch.zeros(1, 2, 6, 6)
    x[:, 0, :, 3:] = 1
    found = edge_map(x)
    assert found[0, 0, 2].tolist() == [0, 0, 0.5, 0.5, 0, 0]
    assert (found[0, 1] == 0).all()


def test_canny__of_a_square__is_its_thin_closed_outline() -> None:
    x = torch.zeros(1, 1, 32, 32)
    x[:, :, 8:24, 8:24] = 200
    edges = canny(x)[0, 0]
    assert (edges[12:20].sum(1) == 2).all()  # one pixel on either side
    assert (edges[:, 12:20].sum(0) == 2).all()
    assert not edges[11:21, 11:21].any()


def test_canny__weak_edges__count_where_they_touch_strong_ones() -> None:
    x = torch.zeros(1, 1, 20, 20)
    x[:, :, :10, 10:] = 100  # a strong step above
    x[:, :, 10:, 10:] = 15  # that goes on weakly below
    low, high = (canny(x, 50, threshold)[0, 0] for threshold in (50, 300))
    assert low[15].any()
    assert high[15].any()
    assert not canny(x, 300, 300)[0, 0, 15].any()
    assert not canny(x[:, :, 11:], 50, 300).any()


# ControlNet.


NAMES = {k: str(k) for k in range(10)}


class Painter:
    """Stands for a pipeline: paints squares of the grey level that the prompt names."""

    def __init__(self, limit: int = 99, blanked: tuple[str, ...] = ()) -> None:
        self.limit, self.blanked = limit, blanked
        self.calls: list[Any] = []

    def set_progress_bar_config(self, **config: Any) -> None:
        pass

    def __call__(self, prompts: list[str], **kwargs: Any) -> Any:
        if len(prompts) > self.limit:
            raise torch.OutOfMemoryError("too many")
        self.calls.append((prompts, kwargs))
        size = (kwargs["height"], kwargs["width"], 3)
        pictures = [np.full(size, int(prompt.split()[-1]) / 10) for prompt in prompts]
        flags = [prompt in self.blanked for prompt in prompts]
        return SimpleNamespace(images=np.stack(pictures), nsfw_content_detected=flags)


def test_controlnet__asks_for_the_label_at_the_papers_settings() -> None:
    X, _ = images(5)
    x = torch.as_tensor(X).permute(0, 3, 1, 2)
    painter = Painter()
    modifier = ControlNetGenerator(
        painter, class_names=NAMES | {7: "8"}, image_size=64, progress=False
    )
    found = modifier.modify(x, np.array([1, 2, 3, 4, 7]), generator())
    prompts, settings = painter.calls[0]
    assert prompts == [f"a photo of {k}" for k in (1, 2, 3, 4, 8)]
    assert settings["num_inference_steps"] == 20
    assert settings["image"].shape == (5, 3, 64, 64)
    assert set(settings["image"].unique().tolist()) <= {0.0, 1.0}
    assert found.shape == x.shape
    assert found.dtype == torch.uint8
    expected = np.array([26, 51, 76, 102, 204])  # tenths of 255
    np.testing.assert_allclose(found.float().mean((1, 2, 3)).numpy(), expected, atol=1.1)


def test_controlnet__out_of_memory__halves_the_batch() -> None:
    X, _ = images(6)
    x = torch.as_tensor(X).permute(0, 3, 1, 2)
    painter = Painter(limit=2)
    modifier = ControlNetGenerator(
        painter, class_names=NAMES, image_size=16, batch_size=8, progress=False
    )
    modifier.modify(x, np.arange(6), generator())
    assert [len(prompts) for prompts, _ in painter.calls] == [2, 2, 2]


def test_controlnet__blanked_images__stay_the_originals_and_are_reported() -> None:
    X, _ = images(3)
    x = torch.as_tensor(X).permute(0, 3, 1, 2)
    painter = Painter(blanked=("a photo of 1",))
    modifier = ControlNetGenerator(painter, class_names=NAMES, image_size=16, progress=False)
    with pytest.warns(NoisyFitWarning, match="blanked 1 images"):
        found = modifier.modify(x, np.arange(3), generator())
    assert torch.equal(found[1], x[1])
    assert not torch.equal(found[2], x[2])
    assert modifier.n_blanked_ == 1


@pytest.mark.parametrize("names", [None, {0: "cat", 1: "dog"}])
def test_controlnet__label_without_a_word__is_an_error(names: dict[Any, str] | None) -> None:
    """3 became "a photo of 3"."""
    x = torch.zeros(3, 3, 8, 8)
    settings: dict[str, Any] = {"image_size": 16, "progress": False}
    modifier = ControlNetGenerator(Painter(), class_names=names, **settings)
    with pytest.raises(ValueError, match="Got the label .* Pass class_names"):
        modifier.modify(x, np.array([0, 1, 3]), generator())
    words = np.array(["photo of 1", "2", "3"])
    with pytest.warns(NoisyFitWarning):  # no edges in blank images
        found = ControlNetGenerator(Painter(), **settings).modify(x, words, generator())
    assert found.shape == x.shape
    if names is not None:
        with pytest.raises(ValueError, match="Got the label 'photo of 1' and words for .0, 1."):
            modifier.modify(x, words, generator())


def test_controlnet__small_images__edges_are_found_at_their_size() -> None:
    """At 512 pixels a 32-pixel image has hardly an edge, and nothing conditioned the drawing."""
    ramp = torch.linspace(60, 160, 32).repeat(2, 3, 32, 1)
    ramp[:, :, 8:24, 8:24] += 40
    painter = Painter()
    settings: dict[str, Any] = {"class_names": NAMES, "image_size": 512, "progress": False}
    with pytest.warns(NoisyFitWarning, match='edges_at="data"'):
        ControlNetGenerator(painter, **settings).modify(ramp, np.arange(2), generator())
    at_data = ControlNetGenerator(painter, edges_at="data", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        at_data.modify(ramp, np.arange(2), generator())
    few, enough = (settings["image"] for _, settings in painter.calls)
    assert float(few.mean()) < 0.005 < 0.05 < float(enough.mean())
    expected = canny(ramp.mean(1, keepdim=True), 75, 75).float()
    assert torch.equal(enough[:, :1, ::16, ::16], expected)
    with pytest.raises(ValueError, match="'edges_at' parameter of ControlNetGenerator must be"):
        ControlNetGenerator(painter, edges_at="pixels", **settings).modify(
            ramp, np.arange(2), generator()
        )


def test_controlnet__of_tables__is_an_error() -> None:
    with pytest.raises(ValueError, match="Use ConditionalDiffusion for tables"):
        ControlNetGenerator(Painter()).modify(torch.zeros(2, 3), np.arange(2), generator())


def tiny_pipeline(folder: Path) -> Any:
    """A Stable Diffusion with a ControlNet whose weights are random and few."""
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    blocks: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    down = ("DownBlock2D", "CrossAttnDownBlock2D")
    text = transformers.CLIPTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=100, bos_token_id=98, eos_token_id=99, pad_token_id=99,
    )  # fmt: skip
    return diffusers.StableDiffusionControlNetPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=tiny_tokenizer(folder, transformers),
        unet=diffusers.UNet2DConditionModel(
            down_block_types=down, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **blocks
        ),
        controlnet=diffusers.ControlNetModel(
            down_block_types=down, conditioning_embedding_out_channels=(8, 16), **blocks
        ),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def tiny_tokenizer(folder: Path, transformers: Any) -> Any:
    """A tokenizer of single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: i for i, word in enumerate(words)}
    vocabulary |= {"<|startoftext|>": 98, "<|endoftext|>": 99}
    import json

    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )


@pytest.mark.filterwarnings("ignore")
def test_controlnet__tiny_pipeline__runs_end_to_end_and_from_a_folder(tmp_path: Path) -> None:
    pipeline = tiny_pipeline(tmp_path)
    X, y = images(4)
    settings: dict[str, Any] = {
        "n_steps": 2, "image_size": 32, "progress": False, "class_names": NAMES
    }  # fmt: skip
    modifier = ControlNetGenerator(pipeline, **settings)
    memory = tmp_path / "memory"
    echo = EchoSelect(modifier, embed_pixels, memory=memory, random_state=0).fit(X, y)
    assert echo.modified_.shape == X.shape
    assert echo.modified_.dtype == np.uint8
    assert not np.array_equal(echo.modified_[0], echo.modified_[3])  # other prompt, other noise
    assert list(memory.rglob("*.rows"))
    pipeline.save_pretrained(tmp_path / "pipeline")
    loaded = ControlNetGenerator(tmp_path / "pipeline", device="cpu", **settings)
    x = torch.as_tensor(X).permute(0, 3, 1, 2)
    first, second = (m.modify(x, y, generator()) for m in (modifier, loaded))
    assert (first.float() - second.float()).abs().max() <= 1


def embed_pixels(rows: Any) -> Any:
    return rows.reshape(len(rows), -1)


# The store of rows.


def test_row_store__finds_what_was_put_in_by_any_writer(tmp_path: Path) -> None:
    keys = [bytes([i]) * 20 for i in range(5)]
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    for part in (slice(0, 2), slice(2, 5)):
        with RowStore(tmp_path, (2,), np.float32) as store:
            store.put(keys[part], rows[part])
    store = RowStore(tmp_path, (2,), np.float32)
    order = [3, 0, 4]
    np.testing.assert_array_equal(store.get([keys[i] for i in order]), rows[order])
    assert b"?" * 20 not in store


def test_row_store__a_torn_write__loses_only_the_rows_without_a_key(tmp_path: Path) -> None:
    keys = [bytes([i]) * 20 for i in range(3)]
    with RowStore(tmp_path, (2,), np.float32) as store:
        store.put(keys, np.ones((3, 2)))
    (file,) = tmp_path.glob("*.keys")
    file.write_bytes(file.read_bytes()[:-7])
    store = RowStore(tmp_path, (2,), np.float32)
    assert [key in store for key in keys] == [True, True, False]
    assert (store.get(keys[:2]) == 1).all()


def test_row_store__a_full_disk__leaves_what_was_put_before_and_names_the_folder(
    tmp_path: Path,
) -> None:
    keys = [bytes([i]) * 20 for i in range(3)]
    rows = np.arange(600, dtype=np.float32).reshape(3, 200)
    with RowStore(tmp_path, (200,), np.float32) as store:
        store.put(keys[:1], rows[:1])
        with full_disk(1000), pytest.raises(OSError, match=f"space left.*{tmp_path}"):
            store.put(keys[1:], rows[1:])
    assert sorted(file.stat().st_size for file in tmp_path.iterdir()) == [40, 800]
    store = RowStore(tmp_path, (200,), np.float32)
    assert [key in store for key in keys] == [True, False, False]
