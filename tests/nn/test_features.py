import pytest
import torch
from torch import Tensor, nn

from noisyfit.nn.features import embedding_size, embeddings, logits_and_embeddings
from noisyfit.nn.input_layer import Standardized


class TimmLike(nn.Module):
    """Its last nn.Linear is not its classification layer, so the hook would find another size."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(5, 3)
        self.body = nn.Linear(4, 5)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.body(x)[:, :, None, None]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else self.classifier(features.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class UnusedLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.linear(x)
        raise RuntimeError("out of order")


def table_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def table() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def n_hooks(module: nn.Module) -> int:
    return sum(len(submodule._forward_pre_hooks) for submodule in module.modules())


def test_embeddings__network_with_linears__are_the_input_of_the_last() -> None:
    module, x = table_network().eval(), table()
    logits, z = logits_and_embeddings(module, x)
    assert torch.equal(logits, module(x))
    assert torch.equal(z, module[:-1](x))
    assert torch.equal(embeddings(module, x), z)


def test_embeddings__timm_pair__is_preferred_and_flattened() -> None:
    module, x = TimmLike(), table()
    logits, z = logits_and_embeddings(module, x)
    assert torch.equal(logits, module(x))
    assert torch.equal(z, module.body(x))
    assert torch.equal(embeddings(module, x), z)


@pytest.mark.parametrize("make_network", [table_network, TimmLike])
def test_embeddings__standardized_network__sees_standardised_input(
    make_network: type[nn.Module],
) -> None:
    network, x = make_network().eval(), table()
    mean, std = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 1.0, 2.0, 4.0])
    module = Standardized(network, mean, std)
    logits, z = logits_and_embeddings(module, x)
    expected_logits, expected_z = logits_and_embeddings(network, (x - mean) / std)
    assert torch.equal(logits, module(x))
    assert torch.equal(logits, expected_logits)
    assert torch.equal(z, expected_z)


@pytest.mark.parametrize("make_network", [table_network, TimmLike])
def test_embeddings__compiled_network__equal_those_of_the_network(
    make_network: type[nn.Module],
) -> None:
    network, x = make_network().eval(), table()
    compiled = torch.compile(network, backend="eager")
    assert isinstance(compiled, nn.Module)
    compiled(x)  # from here on the compiled code ignores new hooks
    module = Standardized(compiled, torch.zeros(4), torch.ones(4))
    for found, expected in zip(
        logits_and_embeddings(module, x), logits_and_embeddings(network, x), strict=True
    ):
        assert torch.equal(found, expected)


def test_logits_and_embeddings__both__carry_gradients() -> None:
    module, x = table_network(), table()
    logits, z = logits_and_embeddings(module, x)
    first = next(module.parameters())
    (from_z,) = torch.autograd.grad(z.square().sum(), [first], retain_graph=True)
    from_logits = torch.autograd.grad(logits.square().sum(), list(module.parameters()))
    assert from_z.any()
    assert all(found.any() for found in (from_logits[0], from_logits[-1]))


def test_logits_and_embeddings__train_mode__is_one_forward_pass() -> None:
    module = table_network()
    logits_and_embeddings(module, table())
    assert module[1].num_batches_tracked == 1


def test_logits_and_embeddings__functional_call__uses_the_given_parameters() -> None:
    network, x = table_network().eval(), table()
    zeros = {name: torch.zeros_like(value) for name, value in network.named_parameters()}

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return logits_and_embeddings(self.network, x)

    swapped = {f"network.{name}": value for name, value in zeros.items()}
    logits, z = torch.func.functional_call(Both(), swapped, (x,))
    assert not logits.any()
    assert not z.any()
    assert logits_and_embeddings(network, x)[1].any()


def test_hook__after_use__is_removed() -> None:
    module = table_network()
    logits_and_embeddings(module, table())
    assert n_hooks(module) == 0


def test_hook__after_an_error__is_removed() -> None:
    module = Failing()
    with pytest.raises(RuntimeError, match="out of order"):
        embeddings(module, table())
    assert n_hooks(module) == 0


@pytest.mark.parametrize(
    "module, got", [(nn.Conv2d(1, 3, 1), "got none"), (UnusedLinear(), "never called")]
)
def test_embeddings__no_linear_to_watch__says_what_to_do(module: nn.Module, got: str) -> None:
    x = table() if isinstance(module, UnusedLinear) else torch.zeros(2, 1, 2, 2)
    with pytest.raises(ValueError, match="must end in an nn.Linear") as error:
        embeddings(module, x)
    message = str(error.value)
    assert type(module).__name__ in message
    assert got in message
    assert "forward_features(x) and forward_head(features, pre_logits=False)" in message
    assert n_hooks(module) == 0


def test_embedding_size__is_the_width_of_the_embeddings() -> None:
    assert embedding_size(table_network(), table()) == 6
    assert embedding_size(TimmLike(), table()) == 5


def test_embedding_size__one_row__suffices_in_train_mode() -> None:
    assert embedding_size(table_network().train(), table()[:1]) == 6


def test_embedding_size__leaves_modes_buffers_and_random_state_alone() -> None:
    body = table_network()
    module = nn.Sequential(body, nn.Dropout(), nn.Linear(3, 2)).train()
    body[1].eval()  # a frozen layer
    modes = [submodule.training for submodule in module.modules()]
    buffers = [buffer.clone() for buffer in module.buffers()]
    random_state = torch.get_rng_state()
    assert embedding_size(module, table()) == 3
    assert [submodule.training for submodule in module.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(module.buffers(), buffers, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_embedding_size__after_an_error__restores_the_training_mode() -> None:
    module = Failing().train()
    with pytest.raises(RuntimeError, match="out of order"):
        embedding_size(module, table())
    assert all(submodule.training for submodule in module.modules())
