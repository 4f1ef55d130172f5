import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms import functional as tv

from noisyfit.nn.augment import (
    ImageAugment,
    TableAugment,
    _apply,
    _draw,
    _grey,
    _Op,
    _strength_table,
    crop_and_flip,
    jitter_and_mask,
    rand_augment,
)

SEEDS = [0, 1, 2]
BILINEAR = InterpolationMode.BILINEAR


class _Recorder(TorchDispatchMode):
    """Count the kernels called, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def noise_images(n: int, channels: int = 3, height: int = 18, width: int = 17) -> Tensor:
    """Images with different ranges of levels per sample and channel."""
    low = torch.randint(0, 90, (n, channels, 1, 1))
    span = torch.randint(1, 160, (n, channels, 1, 1))
    noise = torch.rand(n, channels, height, width)
    return (low + noise * span).to(torch.uint8)


def blob(height: int = 33, width: int = 33) -> Tensor:
    """One smooth image, off centre, black at the border."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    value = 250 * torch.exp(-((y - 12) ** 2) / 40 - ((x - 19) ** 2) / 20)
    return value.to(torch.uint8).expand(1, 3, height, width).contiguous()


def apply_same(x: Tensor, *slots: tuple[_Op, float], dense: bool = False) -> Tensor:
    """Apply the same operations to every image."""
    ops = torch.tensor([[op for op, _ in slots]]).expand(len(x), -1)
    strengths = torch.tensor([[strength for _, strength in slots]]).expand(len(x), -1)
    return _apply(x, ops, strengths, dense=dense)


def largest_difference(a: Tensor, b: Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


def test_jitter_and_mask_with_neither_returns_the_table() -> None:
    x = torch.randn(5, 3)
    out = jitter_and_mask(x, torch.zeros(3), torch.ones(3), jitter=0.0, masking=0.0)
    assert torch.equal(out, x)
    assert out is not x


def test_jitter_and_mask_writes_the_center__everything_masked() -> None:
    center = torch.tensor([1.0, -2.0, 7.0])
    out = jitter_and_mask(torch.randn(5, 3), center, torch.ones(3), jitter=0.3, masking=1.0)
    assert torch.equal(out, center.expand(5, 3))


@pytest.mark.parametrize("seed", SEEDS)
def test_jitter_and_mask_has_the_given_spread_per_feature(seed: int) -> None:
    torch.manual_seed(seed)
    scale = torch.tensor([0.1, 1.0, 50.0])
    out = jitter_and_mask(torch.zeros(4000, 3), torch.zeros(3), scale, jitter=0.3, masking=0.0)
    # The standard error of a deviation from 4000 draws is 1.1 %.
    torch.testing.assert_close(out.std(0), 0.3 * scale, rtol=0.06, atol=0)
    assert (out.mean(0).abs() < 0.03 * scale).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_jitter_and_mask_masks_the_given_share_of_entries_independently(seed: int) -> None:
    torch.manual_seed(seed)
    x, center = torch.ones(4000, 2), torch.full((2,), 9.0)
    masked = jitter_and_mask(x, center, torch.ones(2), jitter=0.0, masking=0.2) == 9.0
    # Standard errors: 0.0045 for the share, 0.0031 for both entries of a row.
    assert abs(masked.float().mean().item() - 0.2) < 0.02
    assert abs(masked.all(1).float().mean().item() - 0.04) < 0.015


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_jitter_and_mask_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = torch.randn(4, 3).to(dtype)
    out = jitter_and_mask(x, torch.zeros(3), torch.ones(3).double(), jitter=0.3, masking=0.5)
    assert out.dtype == dtype


@pytest.mark.parametrize("n", [0, 1])
def test_jitter_and_mask_keeps_the_shape__tiny_batch(n: int) -> None:
    out = jitter_and_mask(torch.randn(n, 3), torch.zeros(3), torch.ones(3), jitter=1, masking=0.5)
    assert out.shape == (n, 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bool, torch.int64])
def test_crop_and_flip_equals_pad_then_crop_then_flip(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 256, (200, 2, 7, 9))
    x = x > 127 if dtype == torch.bool else x.to(dtype)
    seen = set()
    for image, view in zip(x, crop_and_flip(x, padding=2), strict=True):
        padded = F.pad(image.double(), (2, 2, 2, 2), mode="reflect").to(dtype)
        matches = []
        for top, left in itertools.product(range(5), repeat=2):
            crop = padded[:, top : top + 7, left : left + 9]
            matches += [(top, left, 0)] * torch.equal(view, crop)
            matches += [(top, left, 1)] * torch.equal(view, crop.flip(2))
        assert len(matches) == 1
        seen.add(matches[0])
    # 50 equally likely views: 200 draws miss less than one in expectation.
    assert len(seen) > 40


@pytest.mark.parametrize("padding", [-1, 4, 9])
def test_crop_and_flip_refuses_a_padding_without_reflection(padding: int) -> None:
    with pytest.raises(ValueError, match="'padding' of a crop must lie in"):
        crop_and_flip(torch.zeros(2, 1, 4, 6), padding=padding)


@pytest.mark.parametrize("seed", SEEDS)
def test_crop_and_flip_mirrors_half_of_the_images(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.arange(5.0).expand(2000, 1, 3, 5)
    out = crop_and_flip(x, padding=0)
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert ((out == x).flatten(1).all(1) | mirrored).all()
    assert abs(mirrored.float().mean().item() - 0.5) < 0.05  # standard error 0.011
    assert torch.equal(crop_and_flip(x, padding=0, flip=False), x)


@pytest.mark.parametrize("seed", SEEDS)
def test_crop_and_flip_moves_rows_and_columns_independently(seed: int) -> None:
    torch.manual_seed(seed)
    x = (torch.arange(16)[:, None] * 16 + torch.arange(16)).expand(3000, 1, 16, 16)
    centre = crop_and_flip(x, padding=2, flip=False)[:, 0, 8, 8]
    shifts = torch.stack([centre // 16 - 8, centre % 16 - 8], 1).float()
    assert shifts.min() == -2
    assert shifts.max() == 2
    assert (shifts.mean(0).abs() < 0.13).all()  # standard error 0.026
    assert abs(torch.corrcoef(shifts.T)[0, 1].item()) < 0.1  # standard error 0.018


def test_color_operations_are_those_of_torchvision__autocontrast() -> None:
    x = noise_images(6)
    assert torch.equal(apply_same(x, (_Op.AUTOCONTRAST, 0.0)), tv.autocontrast(x))


@pytest.mark.parametrize("side", [12, 20, 40])
def test_color_operations_are_those_of_torchvision__equalize(side: int) -> None:
    x = noise_images(6, height=side, width=side)
    out = apply_same(x, (_Op.EQUALIZE, 0.0))
    assert torch.equal(out, tv.equalize(x))
    assert torch.equal(out, x) == (side == 12)  # fewer than 255 pixels stay


@pytest.mark.parametrize("bits", [4, 5, 7, 8])
def test_color_operations_are_those_of_torchvision__posterize(bits: int) -> None:
    x = noise_images(6)
    assert torch.equal(apply_same(x, (_Op.POSTERIZE, bits)), tv.posterize(x, bits))


@pytest.mark.parametrize("threshold", [0.0, 85.0, 170.0, 255.0])
def test_color_operations_are_those_of_torchvision__solarize(threshold: float) -> None:
    x = noise_images(6)
    assert torch.equal(apply_same(x, (_Op.SOLARIZE, threshold)), tv.solarize(x, threshold))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", [-0.875, -0.3, 0.0, 0.3, 0.875])
@pytest.mark.parametrize(
    "op, reference, tolerance",
    [
        (_Op.BRIGHTNESS, tv.adjust_brightness, 0),
        (_Op.SHARPNESS, tv.adjust_sharpness, 0),
        (_Op.COLOR, tv.adjust_saturation, 1),
        (_Op.CONTRAST, tv.adjust_contrast, 1),
    ],
)
def test_color_operations_are_those_of_torchvision__blends(
    op: _Op,
    reference: Callable[[Tensor, float], Tensor],
    tolerance: int,
    strength: float,
    channels: int,
) -> None:
    x = noise_images(4, channels)
    strength = torch.tensor(strength).item()  # what a float32 tensor holds
    # Images one at a time: torchvision takes the mean of each, but this leaves no doubt.
    expected = torch.stack([reference(image, 1.0 + strength) for image in x])
    assert largest_difference(apply_same(x, (op, strength)), expected) <= tolerance


@pytest.mark.parametrize("op", [_Op.AUTOCONTRAST, _Op.EQUALIZE])
def test_stretching_operations_leave_a_constant_channel_alone(op: _Op) -> None:
    x = noise_images(3, height=30, width=30)
    x[:, 1] = 77
    out = apply_same(x, (op, 0.0))
    assert torch.equal(out[:, 1], x[:, 1])
    assert not torch.equal(out[:, 0], x[:, 0])


@pytest.mark.parametrize("height, width", [(2, 9), (9, 2), (3, 3)])
def test_sharpness_needs_a_pixel_with_eight_neighbours(height: int, width: int) -> None:
    x = noise_images(50, height=height, width=width)
    out = apply_same(x, (_Op.SHARPNESS, 0.3))
    assert torch.equal(out, tv.adjust_sharpness(x, 1.0 + torch.tensor(0.3).item()))
    assert torch.equal(out, x) == (min(height, width) < 3)


def test_equalize_follows_its_definition() -> None:
    x = torch.randint(60, 90, (1, 1, 24, 25), dtype=torch.uint8)
    levels = x.flatten().tolist()
    counts = Counter(levels)
    step = (len(levels) - counts[max(levels)]) // 255
    expected = [
        min(255, (sum(c for k, c in counts.items() if k < v) + step // 2) // step) for v in levels
    ]
    assert apply_same(x, (_Op.EQUALIZE, 0.0)).flatten().tolist() == expected


def test_images_with_two_channels_are_grey() -> None:
    x = noise_images(3, channels=2)
    assert torch.equal(apply_same(x, (_Op.COLOR, 0.9)), x)
    mean = x.double().mean((1, 2, 3), keepdim=True)
    expected = (mean + 0.5 * (x - mean)).clamp(0, 255)
    out = apply_same(x, (_Op.CONTRAST, -0.5))
    assert (out - expected).abs().max() <= 1


def test_grey_is_the_luma_of_rgb() -> None:
    x = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], dtype=torch.uint8)
    assert _grey(x[:, :, None, None]).flatten().tolist() == [76, 149, 29, 18]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    "op, strength, reference",
    [
        (_Op.ROTATE, 10.0, lambda x, s: tv.rotate(x, s, BILINEAR)),
        (_Op.SHEAR_X, 0.25, lambda x, s: shear(x, s, 0.0)),
        (_Op.SHEAR_Y, 0.25, lambda x, s: shear(x, 0.0, s)),
        (_Op.TRANSLATE_X, 3.0, lambda x, s: translate(x, s, 0)),
        (_Op.TRANSLATE_Y, 3.0, lambda x, s: translate(x, 0, s)),
    ],
)
def test_affine_operations_are_those_of_torchvision(
    op: _Op, strength: float, reference: Callable[[Tensor, float], Tensor], sign: int
) -> None:
    x = noise_images(4, height=12, width=17)
    out = apply_same(x, (op, sign * strength))
    assert largest_difference(out, reference(x, sign * strength)) <= 1
    assert largest_difference(out, reference(x, -sign * strength)) > 30


def shear(x: Tensor, along_x: float, along_y: float) -> Tensor:
    """Shear about the top left corner, as torchvision's RandAugment does."""
    angles = torch.rad2deg(torch.atan(torch.tensor([along_x, along_y]))).tolist()
    return tv.affine(x, 0.0, [0, 0], 1.0, angles, BILINEAR, center=[0, 0])


def translate(x: Tensor, along_x: float, along_y: float) -> Tensor:
    return tv.affine(x, 0.0, [int(along_x), int(along_y)], 1.0, [0.0, 0.0], BILINEAR)


def test_affine_operations_compose_in_the_order_drawn() -> None:
    x = blob()
    out = apply_same(x, (_Op.ROTATE, 30.0), (_Op.SHEAR_X, 0.3), (_Op.TRANSLATE_Y, -4.0))
    in_order = translate(shear(tv.rotate(x, 30.0, BILINEAR), 0.3, 0.0), 0, -4)
    reverse = tv.rotate(shear(translate(x, 0, -4), 0.3, 0.0), 30.0, BILINEAR)
    # One interpolation instead of three is sharper: 6 levels here.
    assert largest_difference(out, in_order) < 12
    assert largest_difference(out, reverse) > 60


def test_images_without_an_affine_operation_are_not_resampled() -> None:
    x = noise_images(3)
    assert torch.equal(apply_same(x, (_Op.IDENTITY, 0.0), (_Op.IDENTITY, 0.0)), x)
    assert torch.equal(apply_same(x, (_Op.ROTATE, 0.0)), x)


def test_color_comes_before_geometry() -> None:
    x = noise_images(3)
    contrast, move = (_Op.CONTRAST, -0.9), (_Op.TRANSLATE_X, 4.0)
    out = apply_same(x, move, contrast)
    assert torch.equal(out, apply_same(x, contrast, move))
    assert (out[..., :4] == 0).all()


def test_color_operations_run_in_the_order_drawn() -> None:
    x = noise_images(3)
    first, second = (_Op.SOLARIZE, 100.0), (_Op.BRIGHTNESS, 0.5)
    expected = tv.adjust_brightness(tv.solarize(x, 100.0), 1.5)
    assert torch.equal(apply_same(x, first, second), expected)
    assert not torch.equal(apply_same(x, second, first), expected)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_apply_treats_every_row_by_its_own_operations(channels: int) -> None:
    torch.manual_seed(0)
    x = noise_images(60, channels)
    ops, strengths = _draw(x, 2, 10)
    ops[:14, 0] = torch.arange(14)
    alone = [_apply(x[i : i + 1], ops[i : i + 1], strengths[i : i + 1]) for i in range(60)]
    for dense in (False, True):
        out = _apply(x, ops, strengths, dense=dense)
        # Sums in another order may round a level the other way.
        assert (out != torch.cat(alone)).float().mean() < 0.001


@pytest.mark.parametrize("magnitude", range(31))
def test_strengths_are_those_of_torchvision(magnitude: int) -> None:
    space = RandAugment()._augmentation_space(31, (28, 40))
    names = {_Op.AUTOCONTRAST: "AutoContrast", _Op.SHEAR_X: "ShearX", _Op.SHEAR_Y: "ShearY"}
    names |= {_Op.TRANSLATE_X: "TranslateX", _Op.TRANSLATE_Y: "TranslateY"}
    table = _strength_table(magnitude, 28, 40)
    assert len(table) == len(space) == 14
    for op, strength in zip(_Op, table, strict=True):
        magnitudes, _ = space[names.get(op, op.name.capitalize())]
        expected = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
        if op in (_Op.TRANSLATE_X, _Op.TRANSLATE_Y):
            expected = int(expected)
        assert strength == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_draw_is_uniform_over_operations_and_signs(seed: int) -> None:
    torch.manual_seed(seed)
    ops, strengths = _draw(torch.zeros(14000, 1, 20, 20), 2, 10)
    shares = torch.bincount(ops.flatten(), minlength=14) / ops.numel()
    assert (shares - 1 / 14).abs().max() < 0.008  # standard error 0.0015
    assert abs((ops[:, 0] == ops[:, 1]).float().mean().item() - 1 / 14) < 0.011  # 0.0022
    space = RandAugment()._augmentation_space(31, (20, 20))
    signed = sum(is_signed for _, is_signed in space.values())
    negative = (strengths < 0).float().mean().item()
    assert abs(negative - signed / 28) < 0.015  # 0.0028
    unsigned = [_Op.IDENTITY, _Op.AUTOCONTRAST, _Op.EQUALIZE, _Op.POSTERIZE, _Op.SOLARIZE]
    assert (strengths[torch.isin(ops, torch.tensor(unsigned))] >= 0).all()
    both = ~torch.isin(ops, torch.tensor(unsigned)).any(1)
    same = (strengths[both, 0] < 0) == (strengths[both, 1] < 0)
    assert abs(same.float().mean().item() - 0.5) < 0.04  # 0.0066


@pytest.mark.parametrize("magnitude", [-1, 31])
def test_rand_augment_refuses_a_magnitude_outside_the_bins(magnitude: int) -> None:
    with pytest.raises(ValueError, match=r"'magnitude' must be an integer in \[0, 30\]"):
        rand_augment(noise_images(2), magnitude=magnitude)


def test_rand_augment_refuses_integers_that_are_not_levels() -> None:
    with pytest.raises(TypeError, match="uint8 or floating point"):
        rand_augment(torch.zeros(2, 3, 8, 8, dtype=torch.int64))


def test_rand_augment_refuses_an_empty_value_range() -> None:
    with pytest.raises(ValueError, match="'value_range' must be"):
        rand_augment(torch.zeros(2, 3, 8, 8), value_range=(1.0, 1.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("value_range", [(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)])
def test_rand_augment_agrees_on_uint8_and_float(
    value_range: tuple[float, float], dtype: torch.dtype
) -> None:
    x = noise_images(40)
    low, high = value_range
    scaled = (x.double() / 255 * (high - low) + low).to(dtype)
    torch.manual_seed(3)
    expected = rand_augment(x, padding=2)
    torch.manual_seed(3)
    out = rand_augment(scaled, padding=2, value_range=value_range)
    assert out.dtype == dtype
    levels = (out.double() - low) / (high - low) * 255
    assert (levels - expected).abs().max() < (0.3 if dtype == torch.float16 else 0.001)


@pytest.mark.parametrize("padding", [0, 3])
def test_rand_augment_without_operations_crops_and_flips(padding: int) -> None:
    x = noise_images(20)
    torch.manual_seed(5)
    expected = crop_and_flip(x, padding=padding)
    torch.manual_seed(5)
    assert torch.equal(rand_augment(x, n_ops=0, padding=padding), expected)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 3, 8, 8), (5, 1, 1, 1), (5, 3, 2, 9)])
@pytest.mark.parametrize("dense", [False, True])
def test_views_keep_shape_and_dtype__degenerate_batches(
    shape: tuple[int, int, int, int], dense: bool
) -> None:
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    for out in (
        crop_and_flip(x, padding=0),
        rand_augment(x),
        _apply(x, *_draw(x, 3, 10), dense=dense),
    ):
        assert out.shape == x.shape
        assert out.dtype == torch.uint8


def test_views_of_constant_images_are_finite() -> None:
    x = torch.full((200, 3, 8, 8), 0.5)
    out = rand_augment(x, value_range=(0.0, 1.0), magnitude=30)
    assert torch.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1


def test_views_do_not_depend_on_the_memory_format() -> None:
    x = noise_images(30)
    torch.manual_seed(1)
    expected = rand_augment(x, padding=2)
    torch.manual_seed(1)
    out = rand_augment(x.to(memory_format=torch.channels_last), padding=2)
    assert torch.equal(out, expected)
    assert out.is_contiguous()


def test_views_do_not_depend_on_autocast() -> None:
    x = noise_images(60)
    ops, strengths = _draw(x, 2, 10)
    expected = _apply(x, ops, strengths)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(_apply(x, ops, strengths), expected)


def test_views_do_not_depend_on_the_default_dtype() -> None:
    x = noise_images(60)
    ops, strengths = _draw(x, 2, 10)
    expected = _apply(x, ops, strengths)
    torch.set_default_dtype(torch.float64)
    try:
        out = _apply(x, ops, strengths)
        assert rand_augment(x.float(), padding=2).dtype == torch.float32
        assert _draw(x, 2, 10)[1].dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert (out != expected).float().mean() < 0.01  # levels that round the other way


def _augments() -> list[tuple[TableAugment | ImageAugment, Tensor]]:
    return [
        (TableAugment(torch.zeros(6), torch.ones(6)), torch.randn(1, 6)),
        (ImageAugment(padding=3), noise_images(1)),
        (ImageAugment(padding=3, value_range=(0.0, 1.0)), torch.rand(1, 1, 12, 12)),
    ]


@pytest.mark.parametrize("word", ["weak", "strong"])
def test_views_of_equal_rows_differ(word: str) -> None:
    torch.manual_seed(0)
    for augment, x in _augments():
        views = getattr(augment, word)(x.expand(64, *x.shape[1:]).contiguous())
        assert len(views.flatten(1).unique(dim=0)) > 32


@pytest.mark.parametrize("word", ["weak", "strong"])
def test_views_repeat_with_the_seed_and_leave_the_input_alone(word: str) -> None:
    for augment, x in _augments():
        batch = x.expand(32, *x.shape[1:]).contiguous()
        before = batch.clone()
        views = []
        for seed in (7, 7, 8):
            torch.manual_seed(seed)
            views.append(getattr(augment, word)(batch))
        assert torch.equal(views[0], views[1])
        assert not torch.equal(views[0], views[2])
        assert torch.equal(batch, before)


@pytest.mark.parametrize("masking, expected", [(0.2, 0.4), (0.7, 0.9)])
def test_table_augment_doubles_its_strength(masking: float, expected: float) -> None:
    torch.manual_seed(0)
    augment = TableAugment(torch.full((2,), 9.0), torch.full((2,), 2.0), 0.1, masking)
    out = augment.strong(torch.zeros(4000, 2))
    masked = out == 9.0
    assert abs(masked.float().mean().item() - expected) < 0.03  # standard error 0.006
    assert abs(out[~masked].std().item() - 0.4) < 0.05  # 0.011 for 640 entries
    assert abs((augment.weak(torch.zeros(4000, 2)) == 9.0).float().mean() - masking) < 0.03


def test_image_augment_passes_every_setting_on() -> None:
    x = torch.rand(40, 3, 10, 10)
    augment = ImageAugment(2, flip=False, n_ops=3, magnitude=20, value_range=(0.0, 1.0))
    torch.manual_seed(0)
    strong = augment.strong(x)
    torch.manual_seed(0)
    expected = rand_augment(x, n_ops=3, magnitude=20, value_range=(0.0, 1.0), padding=2, flip=False)
    assert torch.equal(strong, expected)
    torch.manual_seed(0)
    weak = augment.weak(x)
    torch.manual_seed(0)
    assert torch.equal(weak, crop_and_flip(x, padding=2, flip=False))


@pytest.mark.parametrize("dense", [False, True])
def test_kernel_count_does_not_depend_on_the_batch_size(dense: bool) -> None:
    counts = []
    for n in (4, 64):
        x = noise_images(n)
        with _Recorder() as recorder:
            _apply(crop_and_flip(x, padding=2), *_draw(x, 2, 10), dense=dense)
        counts.append(recorder.calls)
    assert counts[0] == counts[1]


def test_dense_views_never_make_the_host_wait() -> None:
    x = noise_images(8)
    with _Recorder() as recorder:
        _apply(crop_and_flip(x, padding=2), *_draw(x, 2, 10), dense=True)
    names = " ".join(recorder.calls)
    assert "grid_sampler_2d" in names
    for waits in ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique"):
        assert waits not in names


@pytest.mark.gpu
def test_views_never_make_the_host_wait__on_a_gpu() -> None:
    batches = [(augment, x.expand(32, *x.shape[1:]).cuda()) for augment, x in _augments()[1:]]
    torch.cuda.set_sync_debug_mode("error")
    try:
        views = [view for augment, x in batches for view in (augment.weak(x), augment.strong(x))]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(view.is_cuda for view in views)
