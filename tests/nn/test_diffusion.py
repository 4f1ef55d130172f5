"""Label diffusion against the equations of the paper, one number at a time, in float64."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from noisyfit.nn.diffusion import (
    Denoiser,
    LogitScale,
    Schedule,
    denoise,
    guided_noise,
    label_contrastive,
)

N, K, D, T = 7, 4, 5, 50
assert_exact = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
Rule = Literal["ddim", "ddpm_mean"]
every_seed = pytest.mark.parametrize("seed", range(3))
with_and_without_features = pytest.mark.parametrize("n_features", [0, D])


def make(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def some_steps(seed: int) -> Tensor:
    """The first and the last step, and others."""
    t = torch.randint(1, T + 1, (N,), generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.tensor([1, T]), t[2:]])


def some_denoiser(n_features: int = 0, seed: int = 0) -> Denoiser:
    """In float64, with no parameter at its start value."""
    torch.manual_seed(seed)
    denoiser = Denoiser(K, hidden=12, n_features=n_features).double()
    for parameter in denoiser.parameters():
        nn.init.normal_(parameter, std=0.5)
    return denoiser


def some_scale() -> LogitScale:
    scale = LogitScale().double()
    scale.update(1.5 + 3 * make(100, K, seed=9))
    return scale


def some_target(seed: int) -> Tensor:
    return (2 * make(N, K, seed=100 + seed)).softmax(1)


def alpha_bars(schedule: Schedule) -> list[float]:
    return schedule.alpha_bar.double().tolist()


# The schedule.


def test_schedule__keeps_evenly_spread_steps_of_latent_diffusion() -> None:
    first, last = math.sqrt(0.00085), math.sqrt(0.012)
    left, full = 1.0, [1.0]
    for i in range(1000):
        left *= 1 - (first + (last - first) * i / 999) ** 2
        full.append(left)
    schedule = Schedule(50)
    assert alpha_bars(schedule) == pytest.approx([full[20 * k] for k in range(51)], rel=1e-6)
    assert schedule.alpha_bar[0] == 1
    assert 1 / math.sqrt(alpha_bars(schedule)[-1]) == pytest.approx(14.6, abs=0.1)


@pytest.mark.parametrize("n_steps", [1, 3, 7, 999, 1000])
def test_schedule__any_number_of_steps__ends_with_the_last_and_falls(n_steps: int) -> None:
    alpha_bar = Schedule(n_steps).alpha_bar
    assert alpha_bar.shape == (n_steps + 1,)
    assert alpha_bar[-1] == Schedule().alpha_bar[-1]
    assert (alpha_bar.diff() < 0).all()


@every_seed
def test_add_noise_and_remove_noise__are_equations_2_and_4(seed: int) -> None:
    schedule, t = Schedule(T).double(), some_steps(seed)
    z, noise, bars = make(N, K, seed=seed), make(N, K, seed=50 + seed), alpha_bars(schedule)
    noised, denoised = torch.zeros_like(z), torch.zeros_like(z)
    for i in range(N):
        bar = bars[int(t[i])]
        for c in range(K):
            a, b = float(z[i, c]), float(noise[i, c])
            noised[i, c] = math.sqrt(bar) * a + math.sqrt(1 - bar) * b
            denoised[i, c] = (a - math.sqrt(1 - bar) * b) / math.sqrt(bar)
    assert_exact(schedule.add_noise(z, noise, t), noised)
    assert_exact(schedule.remove_noise(z, noise, t), denoised)


@every_seed
def test_posterior_mean__is_equation_7(seed: int) -> None:
    schedule, t = Schedule(T).double(), some_steps(seed)
    z, noise, bars = make(N, K, seed=seed), make(N, K, seed=50 + seed), alpha_bars(schedule)
    expected = torch.zeros_like(z)
    for i in range(N):
        bar = bars[int(t[i])]
        alpha = bar / bars[int(t[i]) - 1]
        for c in range(K):
            share = (1 - alpha) / math.sqrt(1 - bar) * float(noise[i, c])
            expected[i, c] = (float(z[i, c]) - share) / math.sqrt(alpha)
    assert_exact(schedule.posterior_mean(z, noise, t), expected)


@every_seed
def test_posterior_mean__is_a_mixture_of_the_noisy_and_the_denoised_label(seed: int) -> None:
    schedule, t = Schedule(T).double(), some_steps(seed)
    z, noise = make(N, K, seed=seed), make(N, K, seed=50 + seed)
    bar, previous = schedule.alpha_bar[t, None], schedule.alpha_bar[t - 1, None]
    alpha = bar / previous
    denoised = schedule.remove_noise(z, noise, t)
    expected = previous.sqrt() * (1 - alpha) / (1 - bar) * denoised
    expected = expected + alpha.sqrt() * (1 - previous) / (1 - bar) * z
    assert_exact(schedule.posterior_mean(z, noise, t), expected)


@every_seed
def test_ddim__goes_through_the_denoised_label(seed: int) -> None:
    schedule, t = Schedule(T).double(), some_steps(seed)
    t_next = torch.tensor([0] + [int(step) * 2 // 3 for step in t[1:]])
    z, noise, bars = make(N, K, seed=seed), make(N, K, seed=50 + seed), alpha_bars(schedule)
    expected = torch.zeros_like(z)
    for i in range(N):
        now, later = bars[int(t[i])], bars[int(t_next[i])]
        for c in range(K):
            b = float(noise[i, c])
            clean = (float(z[i, c]) - math.sqrt(1 - now) * b) / math.sqrt(now)
            expected[i, c] = math.sqrt(later) * clean + math.sqrt(1 - later) * b
    assert_exact(schedule.ddim(z, noise, t, t_next), expected)


def test_step_0__is_the_clean_label_and_has_no_posterior_mean() -> None:
    schedule, z, t = Schedule(T).double(), make(N, K), torch.zeros(N, dtype=torch.long)
    assert torch.equal(schedule.add_noise(z, make(N, K, seed=1), t), z)
    assert torch.equal(schedule.remove_noise(z, make(N, K, seed=1), t), z)
    assert not schedule.posterior_mean(z, make(N, K, seed=1), t).isfinite().any()


# The denoiser and its guidance.


def norm_by_hand(norm: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(norm, nn.LayerNorm)
    return F.layer_norm(x, x.shape[1:], norm.weight, norm.bias)


def noise_by_hand(denoiser: Denoiser, z: Tensor, t: Tensor, features: Tensor | None) -> Tensor:
    angles = [[float(step) * f for f in denoiser.frequencies.tolist()] for step in t]
    waves = [[math.sin(a) for a in row] + [math.cos(a) for a in row] for row in angles]
    code = torch.tensor(waves, dtype=z.dtype)
    first = F.linear(z, denoiser.first.weight, denoiser.first.bias)
    first = first + F.linear(code, denoiser.time.weight)
    if features is not None:
        assert denoiser.features is not None
        plain = norm_by_hand(denoiser.features[0], features)
        first = first + F.linear(plain, *denoiser.features[1].parameters())
    hidden = F.silu(norm_by_hand(denoiser.first_norm, first))
    hidden = F.linear(hidden, denoiser.second.weight, denoiser.second.bias)
    hidden = F.silu(norm_by_hand(denoiser.second_norm, hidden))
    return F.linear(hidden, denoiser.output.weight, denoiser.output.bias)


def guided_by_autograd(
    denoiser: Denoiser,
    schedule: Schedule,
    scale: LogitScale,
    z: Tensor,
    t: Tensor,
    target: Tensor,
    features: Tensor | None,
    guidance_scale: float,
) -> Tensor:
    """Eqs. 3 to 5 line by line."""
    z = z.clone().requires_grad_()
    bar = schedule.alpha_bar[t, None]
    noise = noise_by_hand(denoiser, z, t, features)
    denoised = (z - (1 - bar).sqrt() * noise) / bar.sqrt()
    distance = (F.softmax(denoised * scale.std + scale.mean, dim=1) - target).square().sum(1)
    (gradient,) = torch.autograd.grad(distance.sum(), z, create_graph=True)
    return noise + guidance_scale * (1 - bar).sqrt() * gradient


def features_and_condition(
    denoiser: Denoiser, n_features: int, seed: int
) -> tuple[Tensor | None, Tensor | None]:
    if not n_features:
        return None, None
    features = 2 + 3 * make(N, n_features, seed=200 + seed)
    return features, denoiser.condition(features)


@every_seed
@with_and_without_features
def test_denoiser__is_the_perceptron_that_it_says(seed: int, n_features: int) -> None:
    denoiser, z, t = some_denoiser(n_features, seed), make(N, K, seed=seed), some_steps(seed)
    features, condition = features_and_condition(denoiser, n_features, seed)
    expected = noise_by_hand(denoiser, z, t, features)
    assert_exact(denoiser(z, t, condition), expected)


def test_frequencies__fall_geometrically_from_1_to_1_in_10_000() -> None:
    expected = [10_000 ** (-i / 31) for i in range(32)]
    assert Denoiser(K).frequencies.tolist() == pytest.approx(expected, rel=1e-6)


def test_denoiser__at_the_start__predicts_no_noise() -> None:
    assert not Denoiser(K)(make(N, K).float(), some_steps(0)).any()


def test_denoiser__without_features__has_no_condition() -> None:
    assert Denoiser(K).condition(make(N, D)) is None


@every_seed
def test_condition__reads_features_regardless_of_their_scale(seed: int) -> None:
    denoiser, features = some_denoiser(D, seed), make(N, D, seed=seed)
    one, other = denoiser.condition(features), denoiser.condition(1000 * features)
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert float((one - one[0]).detach().abs().max()) > 0.1


@every_seed
@with_and_without_features
def test_pullback__is_the_transposed_jacobian(seed: int, n_features: int) -> None:
    denoiser, t, u = some_denoiser(n_features, seed), some_steps(seed), make(N, K, seed=50 + seed)
    z = make(N, K, seed=seed).requires_grad_()
    _, condition = features_and_condition(denoiser, n_features, seed)
    noise, pullback = denoiser.vjp(z, t, condition)
    (expected,) = torch.autograd.grad(noise, z, u)
    assert float(expected.abs().max()) > 0.01
    assert_exact(pullback(u), expected)


@every_seed
@with_and_without_features
def test_guided_noise__is_equation_5(seed: int, n_features: int) -> None:
    denoiser, schedule, scale = some_denoiser(n_features, seed), Schedule(T).double(), some_scale()
    z, t, target = make(N, K, seed=seed), some_steps(seed), some_target(seed)
    features, condition = features_and_condition(denoiser, n_features, seed)
    got = guided_noise(denoiser, schedule, scale, z, t, target, condition, guidance_scale=2.0)
    expected = guided_by_autograd(denoiser, schedule, scale, z, t, target, features, 2.0)
    assert not torch.allclose(expected, noise_by_hand(denoiser, z, t, features), atol=0.01)
    assert_exact(got, expected)


@every_seed
@with_and_without_features
def test_guided_noise__its_gradient_in_the_parameters_is_the_second_order_one(
    seed: int, n_features: int
) -> None:
    denoiser, schedule, scale = some_denoiser(n_features, seed), Schedule(T).double(), some_scale()
    z, t, target = make(N, K, seed=seed), some_steps(seed), some_target(seed)
    noise, parameters = make(N, K, seed=50 + seed), list(denoiser.parameters())
    features, condition = features_and_condition(denoiser, n_features, seed)

    def gradient(guided: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((guided - noise).square().mean(), parameters)

    got = gradient(guided_noise(denoiser, schedule, scale, z, t, target, condition))
    expected = gradient(
        guided_by_autograd(denoiser, schedule, scale, z, t, target, features, guidance_scale=1.0)
    )
    unguided = gradient(noise_by_hand(denoiser, z, t, features))
    for one, other, plain in zip(got, expected, unguided, strict=True):
        assert not torch.allclose(other, plain, rtol=1e-4)
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_guided_noise__scale_0__takes_no_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, z, t = some_denoiser(), make(N, K), some_steps(0)
    plain = denoiser(z, t)
    monkeypatch.setattr(Schedule, "remove_noise", None)
    schedule, scale = Schedule(T), some_scale()
    got = guided_noise(denoiser, schedule, scale, z, t, some_target(0), guidance_scale=0.0)
    assert torch.equal(got, plain)


@every_seed
def test_guided_noise__taken_away__leaves_a_label_nearer_the_target(seed: int) -> None:
    denoiser, schedule, scale = some_denoiser(seed=seed), Schedule(T).double(), some_scale()
    z, t, target = make(N, K, seed=seed), torch.full((N,), 10), some_target(seed)

    def distance(guidance_scale: float) -> Tensor:
        noise = guided_noise(denoiser, schedule, scale, z, t, target, guidance_scale=guidance_scale)
        logits = scale.restore(schedule.remove_noise(z, noise, t))
        return (logits.softmax(1) - target).square().sum(1)

    assert (distance(0.01) < distance(0.0)).all()


# The scale of the logits.


def test_logit_scale__before_the_first_batch__changes_nothing() -> None:
    logits = make(N, K)
    assert torch.equal(LogitScale().normalize(logits), logits)


def test_logit_scale__first_batch_sets_it_and_later_ones_move_it() -> None:
    scale, mean, std = LogitScale(momentum=0.25).double(), 0.0, 0.0
    for seed in range(3):
        logits = (seed + 1) * make(N, K, seed=seed) + seed
        scale.update(logits)
        values = logits.flatten().tolist()
        average = sum(values) / len(values)
        spread = math.sqrt(sum((value - average) ** 2 for value in values) / len(values))
        weight = 1.0 if seed == 0 else 0.25
        mean, std = mean + weight * (average - mean), std + weight * (spread - std)
        assert float(scale.mean) == pytest.approx(mean, rel=1e-12)
        assert float(scale.std) == pytest.approx(std, rel=1e-12)


@every_seed
def test_logit_scale__standardises_and_restores(seed: int) -> None:
    scale, logits = LogitScale().double(), 5 + 7 * make(N, K, seed=seed)
    scale.update(logits)
    z = scale.normalize(logits)
    assert float(z.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(z.std(correction=0)) == pytest.approx(1.0, rel=1e-12)
    assert_exact(scale.restore(z), logits)


@pytest.mark.parametrize("shape", [(N, K), (1, 1)])
def test_logit_scale__constant_logits__become_zeros(shape: tuple[int, int]) -> None:
    scale, logits = LogitScale(), torch.full(shape, 2.0)
    scale.update(logits)
    assert torch.equal(scale.normalize(logits), torch.zeros(shape))


def test_logit_scale__survives_saving() -> None:
    scale, other = some_scale(), LogitScale().double()
    other.load_state_dict(scale.state_dict())
    for each in (scale, other):
        each.update(make(N, K))
    assert torch.equal(other.std, scale.std)


# The reverse process.


class Oracle(Denoiser):
    """Knows the clean labels."""

    def __init__(self, schedule: Schedule, z_0: Tensor) -> None:
        super().__init__(K)
        self.schedule, self.z_0 = schedule, z_0

    def forward(self, z_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        bar = self.schedule.alpha_bar[t, None]
        return (z_t - bar.sqrt() * self.z_0) / (1 - bar).sqrt()


@every_seed
@with_and_without_features
def test_denoise__ddpm_mean__is_equation_10_row_by_row(seed: int, n_features: int) -> None:
    denoiser, schedule, scale = some_denoiser(n_features, seed), Schedule(T).double(), some_scale()
    z, target, start = make(N, K, seed=seed), some_target(seed), torch.tensor([1, 9, 4, 9, 2, 7, 3])
    _, condition = features_and_condition(denoiser, n_features, seed)
    expected = []
    for i in range(N):
        row, own = z[i : i + 1], None if condition is None else condition[i : i + 1]
        for k in range(int(start[i]), 0, -1):
            step = torch.tensor([k])
            noise = guided_noise(
                denoiser, schedule, scale, row, step, target[i : i + 1], own, guidance_scale=0.5
            )
            row = schedule.posterior_mean(row, noise, step)
        expected.append(row.detach())
    arguments = denoiser, schedule, scale, z, start, target, condition
    got = denoise(*arguments, rule="ddpm_mean", t_max=9, guidance_scale=0.5)
    assert_exact(got, torch.cat(expected))
    later = denoise(*arguments, rule="ddpm_mean", t_max=12, n_steps=1, guidance_scale=0.5)
    assert torch.equal(later, got)


@every_seed
def test_denoise__ddim__divides_the_way_of_each_row(seed: int) -> None:
    denoiser, schedule, scale = some_denoiser(seed=seed), Schedule(T).double(), some_scale()
    z, target = make(N, K, seed=seed), some_target(seed)
    start = torch.tensor([20, 19, 15, 13, 10, 3, 1])
    paths = [
        [20, 15, 10, 5, 0], [19, 14, 9, 4, 0], [15, 11, 7, 3, 0], [13, 9, 6, 3, 0],
        [10, 7, 5, 2, 0], [3, 2, 1, 0], [1, 0],
    ]  # fmt: skip
    expected = []
    for i, path in enumerate(paths):
        row = z[i : i + 1]
        for now, later in zip(path[:-1], path[1:], strict=True):
            t, t_next = torch.tensor([now]), torch.tensor([later])
            noise = guided_noise(denoiser, schedule, scale, row, t, target[i : i + 1])
            row = schedule.ddim(row, noise, t, t_next)
        expected.append(row.detach())
    got = denoise(denoiser, schedule, scale, z, start, target, n_steps=4, t_max=20)
    assert_exact(got, torch.cat(expected))


def test_denoise__ddpm_mean__rows_keep_their_value_until_their_start() -> None:
    start, z = torch.tensor([0, 1, 10, 11, 25, 49, 50]), make(N, K)
    trajectory = denoise(
        some_denoiser(), Schedule(T).double(), some_scale(), z, start, some_target(0),
        rule="ddpm_mean", return_trajectory=True,
    )  # fmt: skip
    assert trajectory.shape == (51, N, K)
    for i in range(N):
        waiting = 51 - int(start[i])
        assert (trajectory[:waiting, i] == z[i]).all()
        assert (trajectory[waiting:, i] != z[i]).all()


def test_denoise__ddim__only_rows_with_a_step_to_take_move() -> None:
    start, z = torch.tensor([0, 1, 2, 3, 4, 9, 50]), make(N, K)
    trajectory = denoise(
        some_denoiser(), Schedule(T).double(), some_scale(), z, start, some_target(0),
        n_steps=4, return_trajectory=True,
    )  # fmt: skip
    moved = (trajectory[1:] != trajectory[:-1]).any(2)
    assert moved.sum(0).tolist() == [0, 1, 2, 3, 4, 4, 4]


@every_seed
@pytest.mark.parametrize("n_steps", [1, 3, 10, 50, 80])
def test_denoise__ddim_that_knows_the_noise__recovers_the_clean_label(
    n_steps: int, seed: int
) -> None:
    schedule, start = Schedule(T).double(), some_steps(seed)
    z_0, noise = make(N, K, seed=seed), make(N, K, seed=50 + seed)
    got = denoise(
        Oracle(schedule, z_0), schedule, some_scale(), schedule.add_noise(z_0, noise, start), start,
        some_target(seed), n_steps=n_steps, guidance_scale=0.0,
    )  # fmt: skip
    torch.testing.assert_close(got, z_0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", ["ddim", "ddpm_mean"])
def test_denoise__trajectory__goes_from_the_input_to_the_plain_result(rule: Rule) -> None:
    arguments = (
        some_denoiser(D), Schedule(T).double(), some_scale(), make(N, K), some_steps(0),
        some_target(0), make(N, 12, seed=3),
    )  # fmt: skip
    trajectory = denoise(*arguments, rule=rule, return_trajectory=True)
    assert torch.equal(trajectory[0], arguments[3])
    assert torch.equal(trajectory[-1], denoise(*arguments, rule=rule))


def test_denoise__ddim__takes_no_more_steps_than_there_are() -> None:
    trajectory = denoise(
        some_denoiser(), Schedule(T).double(), some_scale(), make(N, K), torch.full((N,), 4),
        some_target(0), n_steps=80, t_max=4, return_trajectory=True,
    )  # fmt: skip
    assert len(trajectory) == 5


def test_denoise__leaves_no_graph() -> None:
    z = make(N, K).requires_grad_()
    got = denoise(some_denoiser(), Schedule(T).double(), some_scale(), z, some_steps(0), z)
    assert not got.requires_grad


@every_seed
@pytest.mark.parametrize("rule", ["ddim", "ddpm_mean"])
def test_denoise__after_training__moves_labels_back_to_their_cluster(seed: int, rule: Rule) -> None:
    torch.manual_seed(seed)
    centres = torch.tensor([[1.5, -0.5, -0.5, -0.5], [-0.5, -0.5, -0.5, 1.5]])
    schedule, denoiser = Schedule(T), Denoiser(K, hidden=64)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=5e-3)

    def some_labels(n: int) -> tuple[Tensor, Tensor]:
        cluster = torch.randint(2, (n,))
        return cluster, centres[cluster] + 0.1 * torch.randn(n, K)

    for _ in range(400):
        _, z_0 = some_labels(128)
        t, noise = torch.randint(1, T + 1, (128,)), torch.randn(128, K)
        predicted = denoiser(schedule.add_noise(z_0, noise, t), t)
        optimizer.zero_grad()
        (predicted - noise).square().mean().backward()
        optimizer.step()

    cluster, z_0 = some_labels(500)
    start = torch.randint(3, 13, (500,))  # beyond, the clusters overlap
    z_t = schedule.add_noise(z_0, torch.randn(500, K), start)
    got = denoise(
        denoiser, schedule, LogitScale(), z_t, start, z_t, rule=rule, t_max=12, guidance_scale=0.0
    )
    away = (got - centres[cluster]).norm(dim=1)
    assert float((away < (got - centres[1 - cluster]).norm(dim=1)).float().mean()) > 0.97
    assert float(away.median()) < 0.4 * float((z_t - centres[cluster]).norm(dim=1).median())


# The contrastive loss.


def contrastive_by_hand(mean: Tensor, view: Tensor, temperature: float) -> float:
    def similarity(a: list[float], b: list[float]) -> float:
        dot = sum(p * q for p, q in zip(a, b, strict=True))
        return dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b)) / temperature

    rows, views = mean.tolist(), view.tolist()
    total = 0.0
    for i in range(len(rows)):
        others = [math.exp(similarity(rows[i], rows[j])) for j in range(len(rows)) if j != i]
        total -= math.log(math.exp(similarity(rows[i], views[i])) / sum(others))
    return total / len(rows)


@every_seed
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_label_contrastive__is_equation_8(temperature: float, seed: int) -> None:
    mean = make(N, K, seed=seed)
    view = mean + make(N, K, seed=50 + seed)
    got = float(label_contrastive(mean, view, temperature=temperature))
    assert got == pytest.approx(contrastive_by_hand(mean, view, temperature), rel=1e-12)


def test_label_contrastive__labels_apart__is_negative() -> None:
    assert float(label_contrastive(torch.eye(3), torch.eye(3))) == pytest.approx(math.log(2) - 10)


@pytest.mark.parametrize("n", [0, 1])
def test_label_contrastive__fewer_than_two_rows__is_zero_and_has_a_graph(n: int) -> None:
    mean, view = make(n, K).requires_grad_(), make(n, K, seed=1).requires_grad_()
    loss = label_contrastive(mean, view)
    loss.backward()
    assert loss == 0
    for each in (mean, view):
        assert each.grad is not None
        assert not each.grad.any()


def test_label_contrastive__zero_vector__has_cosine_0_and_no_gradient() -> None:
    mean, view = torch.zeros(2, K).requires_grad_(), make(2, K).requires_grad_()
    loss = label_contrastive(mean, view)
    loss.backward()
    assert loss == 0  # log 1 from the only other row, 0 from the view
    for each in (mean, view):
        assert each.grad is not None
        assert not each.grad.any()
    mixed = torch.cat([torch.zeros(1, K), torch.randn(3, K)]).requires_grad_()
    label_contrastive(mixed, mixed.detach() + 1).backward()
    assert mixed.grad is not None
    assert mixed.grad.isfinite().all()
    assert mixed.grad[1:].any()


# Precision, and one graph for all batches.


@pytest.mark.parametrize("rule", ["ddim", "ddpm_mean"])
def test_denoise__never_reads_a_value__and_so_never_waits_for_the_device(rule: Rule) -> None:
    with FakeTensorMode():  # tensors without values
        z, start = torch.empty(N, K), torch.empty(N, dtype=torch.long)
        condition = torch.empty(N, 8)
        got = denoise(Denoiser(K, 8), Schedule(T), LogitScale(), z, start, z, condition, rule=rule)
    assert got.shape == (N, K)


def test_autocast__changes_nothing() -> None:
    denoiser, schedule, scale = some_denoiser(D).float(), Schedule(T), some_scale().float()
    z, t, target = make(N, K).float(), some_steps(0), some_target(0).float()
    features = make(N, D, seed=3).float()

    def everything() -> list[Tensor]:
        condition = denoiser.condition(features)
        assert condition is not None
        guided = guided_noise(denoiser, schedule, scale, z, t, target, condition)
        walked = denoise(denoiser, schedule, scale, z, t, target, condition)
        mean = schedule.posterior_mean(z, guided, t)
        return [condition, guided, walked, mean, label_contrastive(z, mean), scale.normalize(z)]

    plain = everything()
    with torch.autocast("cpu", torch.bfloat16):
        assert (z @ z.T).dtype == torch.bfloat16
        under_autocast = everything()
    for one, other in zip(under_autocast, plain, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_half_precision_inputs__are_taken_in_single_precision() -> None:
    denoiser, schedule, scale = some_denoiser(D).float(), Schedule(T), LogitScale()
    logits, t, target = make(N, K).bfloat16(), some_steps(0), some_target(0).bfloat16()
    scale.update(logits)
    assert scale.std.dtype == torch.float32
    z = scale.normalize(logits)
    condition = denoiser.condition(make(N, D).bfloat16())
    assert condition is not None
    found = [
        z,
        scale.restore(logits),
        condition,
        denoiser(logits, t, condition),
        guided_noise(denoiser, schedule, scale, logits, t, target, condition),
        denoise(denoiser, schedule, scale, logits, t, target, condition, return_trajectory=True),
        label_contrastive(logits, logits),
    ]
    assert [each.dtype for each in found] == [torch.float32] * len(found)


@pytest.mark.parametrize("rule", ["ddim", "ddpm_mean"])
def test_denoise__is_one_graph_for_all_batches(rule: Rule) -> None:
    denoiser, schedule, scale = some_denoiser().float(), Schedule(T), some_scale().float()
    counter = CompileCounter()

    def walk(z: Tensor, start: Tensor, target: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return denoise(
                denoiser, schedule, scale, z, start, target, rule=rule, n_steps=3, t_max=4
            )

    compiled = torch.compile(walk, fullgraph=True, backend=counter)
    for seed in range(3):
        start = torch.randint(0, 5, (N,), generator=torch.Generator().manual_seed(seed))
        batch = make(N, K, seed=seed).float(), start, some_target(seed).float()
        torch.testing.assert_close(compiled(*batch), walk(*batch))
    assert counter.frame_count == 1


def test_guided_noise__trains_in_one_graph() -> None:
    denoiser, schedule, scale = some_denoiser().float(), Schedule(T), some_scale().float()
    z, t, target = make(N, K).float(), some_steps(0), some_target(0).float()
    compiled = torch.compile(guided_noise, fullgraph=True, backend="eager")
    gradients = [
        torch.autograd.grad(
            function(denoiser, schedule, scale, z, t, target).square().mean(),
            list(denoiser.parameters()),
        )
        for function in (compiled, guided_noise)
    ]
    torch.testing.assert_close(*gradients)
