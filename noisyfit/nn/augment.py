"""Random views of a batch, drawn per sample and computed on the batch's device."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TableAugment:
    """Weak and strong views of tables; parameters as in :func:`jitter_and_mask`.

    Keep `center` and `scale` on the device of the batches; otherwise every call copies them.
    """

    center: Tensor
    scale: Tensor
    jitter: float = 0.3
    masking: float = 0.2

    def weak(self, x: Tensor) -> Tensor:
        """Return a view of `x`, (n, n_features), with the given jitter and masking."""
        return jitter_and_mask(x, self.center, self.scale, jitter=self.jitter, masking=self.masking)

    def strong(self, x: Tensor) -> Tensor:
        """Return a view with twice the jitter and twice the masking, the latter at most 0.9."""
        masking = min(2 * self.masking, 0.9)
        return jitter_and_mask(x, self.center, self.scale, jitter=2 * self.jitter, masking=masking)


@dataclass(frozen=True)
class ImageAugment:
    """Weak and strong views of images; parameters as in :func:`rand_augment`."""

    padding: int
    flip: bool = True
    n_ops: int = 2
    magnitude: int = 10
    value_range: tuple[float, float] = (0.0, 255.0)

    def weak(self, x: Tensor) -> Tensor:
        """Return a randomly cropped and flipped view of `x`, (n, C, H, W)."""
        return crop_and_flip(x, padding=self.padding, flip=self.flip)

    def strong(self, x: Tensor) -> Tensor:
        """Return a cropped and flipped view changed by `n_ops` random operations."""
        return rand_augment(x, **vars(self))


def jitter_and_mask(
    x: Tensor, center: Tensor, scale: Tensor, *, jitter: float, masking: float
) -> Tensor:
    """Add Gaussian noise to a table and replace random entries with the feature's mean.

    Parameters
    ----------
    x : Tensor of shape (n, n_features), floating point
        Rows in the user's units.
    center, scale : Tensor of shape (n_features,)
        Mean and standard deviation of every feature, in the same units.
    jitter : float, at least 0
        Standard deviation of the noise, in units of `scale`.
    masking : float in [0, 1]
        Probability with which each entry, independently, becomes its feature's `center`.

    Returns
    -------
    Tensor of shape (n, n_features)
        New; dtype and device of `x`.
    """
    noisy = x + torch.randn_like(x) * (jitter * scale.to(x))
    return torch.where(torch.rand(x.shape, device=x.device) < masking, center.to(x), noisy)


def crop_and_flip(x: Tensor, *, padding: int, flip: bool = True) -> Tensor:
    """Pad by reflection, crop randomly to the original size and mirror half of the images.

    The weak view of [1]_. Every image draws its own offset, uniform over the ``(2 * padding +
    1)**2`` possible ones, and its own flip. Padding, crop and flip are one gather of pixels, so the
    values are bit-identical to those of ``F.pad(mode="reflect")``.

    Parameters
    ----------
    x : Tensor of shape (n, C, H, W), any dtype
    padding : int in [0, min(H, W))
        Pixels added on every side. The edge pixel itself is not repeated.
    flip : bool, default=True
        Whether each image is mirrored left to right with probability 0.5.

    Returns
    -------
    Tensor of shape (n, C, H, W)
        New, of the dtype of `x`, in plain NCHW order.

    Raises
    ------
    ValueError
        If `padding` is negative or not less than both sides.

    References
    ----------
    .. [1] Sohn et al. FixMatch. NeurIPS, 2020. arXiv:2001.07685.
    """
    n, height, width = len(x), *x.shape[-2:]
    if not 0 <= padding < min(height, width):
        raise ValueError(
            f"The 'padding' of a crop must lie in [0, {min(height, width)}) for images of "
            f"{height} x {width} pixels. Got {padding}. Pass a smaller padding."
        )
    top, left = torch.randint(2 * padding + 1, (2, n, 1), device=x.device)
    row = _reflect(top - padding + torch.arange(height, device=x.device), height)  # (n, H)
    column = _reflect(left - padding + torch.arange(width, device=x.device), width)  # (n, W)
    if flip:
        mirror = torch.rand((n, 1), device=x.device) < 0.5
        column = torch.where(mirror, column.flip(1), column)
    pixel = (row[:, :, None] * width + column[:, None, :]).view(n, 1, height * width)
    # One plane at a time: NCHW, 1.3 us per 3x32x32 image on one core, NHWC takes 1.6.
    return x.flatten(2).gather(2, pixel.expand(-1, x.shape[1], -1)).view(x.shape)


def _reflect(index: Tensor, side: int) -> Tensor:
    """Fold indices in (-side, 2 * side - 1) back into [0, side), the edge pixel not repeated."""
    return side - 1 - (side - 1 - index.abs()).abs()


def rand_augment(
    x: Tensor,
    *,
    n_ops: int = 2,
    magnitude: int = 10,
    value_range: tuple[float, float] = (0.0, 255.0),
    padding: int = 0,
    flip: bool = True,
) -> Tensor:
    """Crop, flip and distort images with random operations, drawn for every image.

    RandAugment [1]_: every image draws `n_ops` of 14 operations independently and uniformly, and a
    sign if the operation has one. Strengths are those of torchvision's ``RandAugment``.

    Parameters
    ----------
    x : Tensor of shape (n, C, H, W), uint8 or floating point
        Three channels are red, green and blue. With any other number the colour operation leaves
        the image unchanged and contrast refers to the mean over the channels.
    n_ops : int, default=2
        Operations per image.
    magnitude : int in [0, 30], default=10
        Index of the strength.
    value_range : tuple of two floats, default=(0.0, 255.0)
        Black and white of float images, which are rounded to 256 levels in between. Not used for
        uint8 images.
    padding, flip : int and bool
        Applied first, see :func:`crop_and_flip`.

    Returns
    -------
    Tensor of shape (n, C, H, W)
        New, of the dtype of `x`, in plain NCHW order.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, or `x` is neither uint8 nor floating point.

    Notes
    -----
    Differences from torchvision: (1) the operations are drawn per image, not per call; (2) the
    colour operations of an image run first, in the order drawn, then all its rotations, shears and
    translations as one affine map, interpolated bilinearly once, with black outside the image.
    Cost: the number of kernels does not depend on n, so on a GPU pass thousands of images at a
    time; on a CPU pass one batch, which stays in cache and changes only the rows that drew an
    operation.

    References
    ----------
    .. [1] Cubuk et al. RandAugment. NeurIPS, 2020. arXiv:1909.13719.
    """
    levels = crop_and_flip(_to_levels(x, value_range), padding=padding, flip=flip)
    ops, strengths = _draw(x, n_ops, magnitude)
    return _from_levels(_apply(levels, ops, strengths), x.dtype, value_range)


def _to_levels(x: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Round images to uint8 levels, black 0 and white 255."""
    low, high = value_range
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise TypeError(f"Images must be uint8 or floating point. Got {x.dtype}. Cast them.")
    if not low < high:
        raise ValueError(f"The 'value_range' must be (black, white), ascending. Got {value_range}.")
    return _clip(((x.float() - low) * (255 / (high - low))).round_())


def _from_levels(levels: Tensor, dtype: torch.dtype, value_range: tuple[float, float]) -> Tensor:
    """Undo :func:`_to_levels`."""
    if dtype == torch.uint8:
        return levels
    low, high = value_range
    return (levels.float() * ((high - low) / 255) + low).to(dtype)


class _Op(IntEnum):
    """The 14 operations, in groups that are handled together."""

    IDENTITY = 0
    COLOR = 1
    SHARPNESS = 2
    AUTOCONTRAST = 3  # the first tone curve
    EQUALIZE = 4
    BRIGHTNESS = 5
    CONTRAST = 6
    POSTERIZE = 7
    SOLARIZE = 8  # the last tone curve
    ROTATE = 9  # the first affine map
    SHEAR_X = 10
    SHEAR_Y = 11
    TRANSLATE_X = 12
    TRANSLATE_Y = 13


_UNSIGNED = {_Op.IDENTITY, _Op.AUTOCONTRAST, _Op.EQUALIZE, _Op.POSTERIZE, _Op.SOLARIZE}


def _strength_table(magnitude: int, height: int, width: int) -> list[float]:
    """Return the strength of every operation before its sign.

    Degrees for rotate, a slope for shear, whole pixels for translate, bits kept for posterize, a
    level for solarize; ``factor - 1`` for the other four.
    """
    if not 0 <= magnitude <= 30:
        raise ValueError(f"The 'magnitude' must be an integer in [0, 30]. Got {magnitude}.")
    share = magnitude / 30
    table = dict.fromkeys((_Op.BRIGHTNESS, _Op.COLOR, _Op.CONTRAST, _Op.SHARPNESS), 0.9 * share)
    table |= {_Op.SHEAR_X: 0.3 * share, _Op.SHEAR_Y: 0.3 * share, _Op.ROTATE: 30 * share}
    table[_Op.TRANSLATE_X] = int(150 / 331 * width * share)
    table[_Op.TRANSLATE_Y] = int(150 / 331 * height * share)
    table[_Op.POSTERIZE] = 8 - round(4 * share)
    table[_Op.SOLARIZE] = 255 * (1 - share)
    return [table.get(op, 0.0) for op in _Op]


def _draw(x: Tensor, n_ops: int, magnitude: int) -> tuple[Tensor, Tensor]:
    """Draw operations, (n, n_ops) int64, and signed strengths, (n, n_ops), for images `x`."""
    height, width = x.shape[-2:]
    plus = _strength_table(magnitude, height, width)
    minus = [s if op in _UNSIGNED else -s for op, s in zip(_Op, plus, strict=True)]
    table = torch.tensor([plus, minus], dtype=torch.float32).to(x.device, non_blocking=True)
    ops = torch.randint(len(_Op), (len(x), n_ops), device=x.device)
    sign = torch.randint(2, (len(x), n_ops), device=x.device)
    return ops, table[sign, ops]


def _apply(x: Tensor, ops: Tensor, strengths: Tensor, *, dense: bool | None = None) -> Tensor:
    """Apply operations ``ops``, (n, n_ops), of ``strengths``, (n, n_ops), to uint8 images.

    `dense` computes every row and selects; by default it is on except on a CPU.
    """
    on_rows = partial(_on_rows, dense=x.device.type != "cpu" if dense is None else dense)
    for op, strength in zip(ops.unbind(1), strengths.unbind(1), strict=True):
        is_tone = (op >= _Op.AUTOCONTRAST) & (op <= _Op.SOLARIZE)
        x = on_rows(is_tone, partial(_remap, on_rows=on_rows), x, op, strength)
        x = on_rows(op == _Op.COLOR, _saturate, x, strength)
        x = on_rows(op == _Op.SHARPNESS, _sharpen, x, strength)
    matrix = _sampling_matrix(ops, strengths, x.shape[-2], x.shape[-1])
    return on_rows((ops >= _Op.ROTATE).any(1), _warp, x, matrix)


def _on_rows(
    chosen: Tensor, change: Callable[..., Tensor], x: Tensor, *args: Tensor, dense: bool
) -> Tensor:
    """Replace the `chosen` rows of `x`, (n,) bool, with ``change(x, *args)``."""
    if dense:  # counting the chosen rows would make the host wait for the device
        return torch.where(chosen.view(-1, *[1] * (x.ndim - 1)), change(x, *args), x)
    rows = chosen.nonzero().squeeze(1)
    changed = change(*(a.index_select(0, rows) for a in (x, *args)))
    # Not index_copy, which moves single elements: 3x slower.
    source = torch.arange(len(x)).index_copy(0, rows, len(x) + torch.arange(len(rows)))
    return torch.cat([x, changed]).index_select(0, source)


def _remap(x: Tensor, op: Tensor, strength: Tensor, *, on_rows: Callable[..., Tensor]) -> Tensor:
    """Map the levels of every channel by a table; `op` and `strength` are (n,)."""
    level = _all_levels(x)
    kind, s = op[:, None, None], strength[:, None, None]
    dropped = (8 - s).clamp(0, 7).to(torch.uint8)  # bits; the clamp only tames other operations
    table = torch.where(kind == _Op.BRIGHTNESS, _blend(level, 0 * s, s), level)
    table = torch.where(kind == _Op.POSTERIZE, (level >> dropped) << dropped, table)
    table = torch.where((kind == _Op.SOLARIZE) & (level >= s), 255 - level, table)
    table = table.expand(-1, x.shape[1], -1)  # (n, C, 256)
    table = on_rows(op == _Op.CONTRAST, _contrast_table, table, x, strength)
    table = on_rows(op == _Op.AUTOCONTRAST, _autocontrast_table, table, x)
    table = on_rows(op == _Op.EQUALIZE, _equalize_table, table, x)
    return table.gather(2, x.flatten(2).long()).view(x.shape)


def _contrast_table(table: Tensor, x: Tensor, strength: Tensor) -> Tensor:
    """Move all levels away from the mean grey."""
    mean = _grey(x).mean((1, 2, 3))[:, None, None]
    return _blend(_all_levels(x), mean, strength[:, None, None]).expand_as(table)


def _autocontrast_table(table: Tensor, x: Tensor) -> Tensor:
    """Stretch the levels of every channel to [0, 255]; a constant channel stays."""
    lowest = x.flatten(2).amin(2, keepdim=True).float()
    extent = x.flatten(2).amax(2, keepdim=True) - lowest
    level = _all_levels(x)
    return torch.where(extent > 0, _clip((level - lowest) * (255 / extent)), level)


def _equalize_table(table: Tensor, x: Tensor) -> Tensor:
    """Make the histogram of every channel flat."""
    level = x.flatten(2).long()
    one = torch.ones((), dtype=torch.int32, device=x.device)
    counts = torch.zeros(table.shape, dtype=torch.int32, device=x.device)
    counts.scatter_add_(2, level, one.expand_as(level))
    # Pixels per output level; the brightest bin does not count, as in PIL and torchvision.
    step = (level.shape[2] - counts.gather(2, level.amax(2, keepdim=True))) // 255
    below = counts.cumsum(2) - counts
    return torch.where(step > 0, _clip((below + step // 2) // step.clamp(min=1)), _all_levels(x))


def _saturate(x: Tensor, strength: Tensor) -> Tensor:
    """Move colours away from grey; images without three channels stay."""
    return _blend(x, _grey(x), strength[:, None, None, None]) if x.shape[1] == 3 else x


def _sharpen(x: Tensor, strength: Tensor) -> Tensor:
    """Move images away from their blur with a 3 x 3 kernel of ones and 5 in the middle."""
    if min(x.shape[-2:]) < 3:
        return x
    wide = x.to(torch.int16)
    total = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    total = total[..., :-2, :] + total[..., 1:-1, :] + total[..., 2:, :]
    blurred = x.float()  # the border is not blurred, as in torchvision
    blurred[..., 1:-1, 1:-1] = ((total + 4 * wide[..., 1:-1, 1:-1]) / 13).round_()
    return _blend(x, blurred, strength[:, None, None, None])


def _blend(x: Tensor, origin: Tensor, strength: Tensor) -> Tensor:
    """Return ``origin + (1 + strength) * (x - origin)`` as uint8."""
    return _clip((1 + strength) * x - strength * origin)  # rounds as torchvision does


def _clip(levels: Tensor) -> Tensor:
    return levels.clamp(0, 255).to(torch.uint8)


def _all_levels(x: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.uint8, device=x.device)


def _grey(x: Tensor) -> Tensor:
    """Return the luma (ITU-R 601-2) in whole levels, or the mean if there are not 3 channels."""
    if x.shape[1] != 3:
        return x.float().mean(1, keepdim=True)
    red, green, blue = x.split(1, dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor_()


def _sampling_matrix(ops: Tensor, strengths: Tensor, height: int, width: int) -> Tensor:
    """Compose the affine maps of all slots into one from output to input pixels, (n, 2, 3).

    Coordinates are pixels from the centre of the image; shears leave the top left corner in place.
    """

    def drawn(op: _Op) -> Tensor:
        return torch.where(ops == op, strengths, 0.0)  # (n, n_ops)

    angle = torch.deg2rad(drawn(_Op.ROTATE))
    cos, sin = angle.cos(), angle.sin()
    shear_x, shear_y = drawn(_Op.SHEAR_X), drawn(_Op.SHEAR_Y)
    move_x = shear_x * (height / 2) - drawn(_Op.TRANSLATE_X)
    move_y = shear_y * (width / 2) - drawn(_Op.TRANSLATE_Y)
    rows = [cos, shear_x - sin, move_x, shear_y + sin, cos, move_y]
    matrices = torch.stack(rows, 2).unflatten(2, (2, 3))  # (n, n_ops, 2, 3)
    matrix = torch.eye(2, 3, dtype=strengths.dtype, device=ops.device).expand(len(ops), 2, 3)
    for right in matrices.unbind(1):
        # Not matmul, which TF32 or autocast would round to a fraction of a pixel.
        product = (matrix[:, :, :2, None] * right[:, None]).sum(2)
        matrix = torch.cat([product[..., :2], product[..., 2:] + matrix[..., 2:]], 2)
    return matrix


def _warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Sample uint8 images bilinearly at ``matrix @ (column, row, 1)``, black outside."""
    height, width = x.shape[-2:]
    column = torch.arange(width, dtype=matrix.dtype, device=x.device) - (width - 1) / 2
    row = (torch.arange(height, dtype=matrix.dtype, device=x.device) - (height - 1) / 2)[:, None]
    side = torch.stack([matrix[:, 0] * (2 / width), matrix[:, 1] * (2 / height)], 1)
    along_x, along_y, move = side[..., None, None].unbind(2)  # (n, 2, 1, 1)
    grid = along_x * column + (along_y * row + move)  # (n, 2, H, W) in [-1, 1]
    sampled = F.grid_sample(x.float(), grid.permute(0, 2, 3, 1), align_corners=False)
    return sampled.round_().to(torch.uint8)
