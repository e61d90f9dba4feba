"""Modules, layers, losses and initial values."""

import copy
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn
from ferrograd.autograd import gradcheck


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.scale = nn.Parameter(np.ones(1, dtype=np.float32))
        self.register_buffer("calls", fg.zeros(1))
        self.register_buffer("scratch", fg.zeros(1), persistent=False)

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return x + self.inner(x).relu() * self.scale


def state_bytes(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


# Module


def test_assigned_parameters_modules_and_buffers_are_found_in_order() -> None:
    model = nn.Sequential(Residual(2), nn.ReLU())
    names = [name for name, _ in model.named_parameters()]
    assert names == ["0.scale", "0.inner.weight", "0.inner.bias"]
    assert [name for name, _ in model.named_buffers()] == ["0.calls", "0.scratch"]
    assert [type(module).__name__ for module in model.modules()] == [
        "Sequential",
        "Residual",
        "Linear",
        "ReLU",
    ]
    assert [type(module).__name__ for module in model.children()] == ["Residual", "ReLU"]


def test_non_persistent_buffers_are_not_saved() -> None:
    assert list(Residual(2).state_dict()) == ["scale", "calls", "inner.weight", "inner.bias"]


def test_a_shared_parameter_is_listed_once_and_saved_under_each_name() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    assert len(list(model.parameters())) == 3
    assert set(model.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    model.double()
    assert first.weight is second.weight


def test_a_module_without_super_init_says_so() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Forgetful()


def test_a_parameter_is_not_replaced_by_a_plain_tensor() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="weight"):
        layer.weight = fg.zeros(2, 2)  # type: ignore[assignment]


def test_a_parameter_shares_a_tensors_values_and_copies_an_arrays() -> None:
    values, array = fg.zeros(2), np.zeros(2)
    nn.init.ones_(nn.Parameter(values))
    nn.init.ones_(nn.Parameter(array))
    assert values.tolist() == [1.0, 1.0]
    assert array.tolist() == [0.0, 0.0]


def test_missing_attribute_names_the_module() -> None:
    with pytest.raises(AttributeError, match="Linear has no attribute 'wight'"):
        _ = nn.Linear(1, 1).wight


def test_train_and_eval_reach_every_module() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout()))
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    model.train()
    assert all(module.training for module in model.modules())


def test_apply_visits_children_before_parents() -> None:
    visited: list[str] = []
    nn.Sequential(nn.Linear(1, 1), nn.ReLU()).apply(lambda module: visited.append(type(module).__name__))
    assert visited == ["Linear", "ReLU", "Sequential"]


def test_requires_grad_and_zero_grad() -> None:
    layer = nn.Linear(2, 1)
    layer(fg.ones(1, 2)).sum().backward()
    assert layer.weight.grad is not None
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad.tolist() == [[0.0, 0.0]]
    layer.zero_grad()
    assert layer.weight.grad is None
    layer.requires_grad_(False)
    assert not layer(fg.ones(1, 2)).requires_grad


def test_to_converts_floating_tensors_only() -> None:
    model = Residual(2)
    model.register_buffer("count", fg.tensor([1]))
    assert model.double() is model
    assert {parameter.dtype for parameter in model.parameters()} == {fg.float64}
    assert model.calls.dtype == fg.float64
    assert model.count.dtype == fg.int64
    assert isinstance(model.scale, nn.Parameter)
    assert model.to("float32").scale.dtype == fg.float32
    with pytest.raises(fg.DTypeError):
        model.to(fg.int64)


def test_repr_is_a_tree() -> None:
    assert repr(nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Dropout(0.2)))) == (
        "Sequential(\n"
        "  (0): Linear(in_features=4, out_features=3, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Dropout(p=0.2)\n"
        "  )\n"
        ")"
    )


def test_sequential_takes_a_mapping_and_slices() -> None:
    model = nn.Sequential(OrderedDict(first=nn.Linear(2, 3), act=nn.ReLU(), last=nn.Linear(3, 1)))
    assert [name for name, _ in model.named_children()] == ["first", "act", "last"]
    assert len(model[:2]) == 2
    assert model[-1] is model.last
    assert model(fg.ones(5, 2)).shape == (5, 1)
    with pytest.raises(TypeError):
        nn.Sequential(fg.relu)  # type: ignore[arg-type]


def test_module_list_registers_what_it_holds() -> None:
    layers = nn.ModuleList([nn.Linear(2, 2)])
    layers.append(nn.Linear(2, 1)).extend([nn.ReLU()])
    layers.insert(0, nn.Identity())
    assert [type(layer).__name__ for layer in layers] == ["Identity", "Linear", "Linear", "ReLU"]
    assert [name for name, _ in layers.named_parameters()] == ["1.weight", "1.bias", "2.weight", "2.bias"]


def test_an_empty_container_still_counts_as_a_child() -> None:
    assert len(list(nn.Sequential(nn.Sequential()).modules())) == 2


# State


def test_state_dict_takes_numpy_arrays_and_converts_the_dtype() -> None:
    layer = nn.Linear(2, 1)
    keys = layer.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": np.array([3])})
    assert keys == ([], [])
    assert layer.weight.dtype == fg.float32
    assert layer(fg.ones(1, 2)).tolist() == [[6.0]]


def test_load_state_dict_lists_every_problem_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = state_bytes(model)
    state: dict[str, Any] = {
        "0.weight": np.ones((3, 2)),
        "0.bias": np.ones(4),
        "1.weight": np.ones((1, 3)),
        "extra": np.ones(1),
    }
    with pytest.raises(fg.ConfigError) as caught:
        model.load_state_dict(state)
    for part in ("missing keys: 1.bias", "unexpected keys: extra", "0.bias: expected shape (3,), got (4,)"):
        assert part in str(caught.value)
    assert state_bytes(model) == before


def test_load_state_dict_refuses_wrong_shapes_even_if_not_strict() -> None:
    layer = nn.Linear(2, 1)
    before = state_bytes(layer)
    with pytest.raises(fg.ShapeError, match=r"weight: expected shape \(1, 2\), got \(2, 1\)"):
        layer.load_state_dict({"weight": np.ones((2, 1)), "other": np.ones(1)}, strict=False)
    assert state_bytes(layer) == before


def test_load_state_dict_not_strict_reports_names() -> None:
    keys = nn.Linear(1, 1).load_state_dict({"weight": np.ones((1, 1)), "other": np.ones(1)}, strict=False)
    assert keys.missing_keys == ["bias"]
    assert keys.unexpected_keys == ["other"]


def test_save_and_load_give_the_same_bits(tmp_path: Path) -> None:
    model = Residual(3)
    model.save(tmp_path / "model.safetensors")
    other = Residual(3)
    assert state_bytes(other) != state_bytes(model)
    other.load(tmp_path / "model.safetensors")
    assert state_bytes(other) == state_bytes(model)
    tensors = fg.load(tmp_path / "model.safetensors")
    assert set(tensors) == set(model.state_dict())


def test_loading_a_missing_or_damaged_file_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(fg.CheckpointError):
        nn.Linear(1, 1).load(tmp_path / "missing.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(fg.CorruptFileError):
        fg.load(tmp_path / "damaged.safetensors")


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_copies_are_equal_and_independent(duplicate: Any) -> None:
    model = nn.Sequential(Residual(2), nn.Linear(2, 1))
    model[1].weight.requires_grad_(False)
    other = duplicate(model)
    assert state_bytes(other) == state_bytes(model)
    assert not other[1].weight.requires_grad
    assert isinstance(other[0].scale, nn.Parameter)
    before = state_bytes(model)
    with fg.no_grad():
        other[0].scale.fill_(9.0)
    assert state_bytes(model) == before


def test_deepcopy_keeps_shared_parameters_shared() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    model = copy.deepcopy(nn.Sequential(first, second))
    assert model[0].weight is model[1].weight


# Layers


def test_linear_draws_from_pytorchs_interval() -> None:
    layer = nn.Linear(100, 200)
    bound = 1 / math.sqrt(100)
    for parameter in layer.parameters():
        values = parameter.numpy()
        assert np.abs(values).max() <= bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_linear_without_bias_and_with_leading_dimensions() -> None:
    layer = nn.Linear(4, 3, bias=False)
    assert layer.bias is None
    x = fg.randn(2, 5, 4)
    np.testing.assert_allclose(layer(x).numpy(), x.numpy() @ layer.weight.numpy().T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(0, 1), (1, -1), (1.5, 2), (True, 2)])
def test_linear_refuses_sizes_that_are_no_counts(sizes: Any) -> None:
    with pytest.raises(fg.ConfigError, match=r"Linear: (in|out)_features"):
        nn.Linear(*sizes)


def test_maxout_is_the_largest_of_its_maps() -> None:
    layer = nn.Maxout(4, 3, pieces=2)
    x = fg.randn(5, 4)
    maps = layer.linear(x).numpy().reshape(5, 3, 2)
    np.testing.assert_array_equal(layer(x).numpy(), maps.max(axis=2))


def test_dropout_scales_in_training_and_does_nothing_in_eval() -> None:
    layer = nn.Dropout(0.25)
    x = fg.ones(4000)
    y = layer(x).numpy()
    assert set(np.unique(y)) == {np.float32(0.0), np.float32(1 / 0.75)}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert layer.eval()(x) is x


def test_dropout_passes_the_gradient_through_its_mask() -> None:
    x = fg.ones(100, requires_grad=True)
    y = nn.functional.dropout(x, 0.5)
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), True])
def test_dropout_refuses_what_is_no_probability(p: Any) -> None:
    with pytest.raises(fg.ConfigError, match="p must lie in"):
        nn.Dropout(p)


def test_flatten_keeps_the_batch() -> None:
    assert nn.Flatten()(fg.zeros(2, 3, 4)).shape == (2, 12)


def test_softmax_without_dim_is_refused() -> None:
    with pytest.raises(fg.ConfigError, match="dim must be given"):
        nn.Softmax()(fg.zeros(2, 2))


ACTIVATIONS = [
    nn.ReLU(),
    nn.LeakyReLU(),
    nn.LeakyReLU(0.1),
    nn.PReLU(),
    nn.ELU(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Softplus(),
    nn.Softmax(dim=-1),
    nn.LogSoftmax(dim=-1),
    nn.Maxout(4, 3),
]


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: repr(layer).split("\n")[0])
def test_activation_gradients_match_differences(layer: nn.Module) -> None:
    layer = copy.deepcopy(layer).double()
    # Away from the kinks, where a difference quotient has no meaning.
    x = fg.tensor(np.array([[-2.0, -0.3, 0.4, 1.7], [0.9, -1.2, 0.1, -0.6]]), requires_grad=True)
    assert gradcheck(lambda x, *parameters: layer(x), [x, *layer.parameters()])


# Losses


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.BCELoss(), nn.BCEWithLogitsLoss()])
def test_a_column_is_not_compared_with_a_row(loss: nn.Loss) -> None:
    with pytest.raises(fg.ShapeError, match=r"\(3, 1\).*\(3,\)"):
        loss(fg.full((3, 1), 0.5), fg.full((3,), 0.5))


@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), nn.CrossEntropyLoss(), nn.MultiMarginLoss(), nn.MulticlassHingeLoss()]
)
def test_unreduced_losses_average_to_the_loss(loss: nn.Loss) -> None:
    input = fg.randn(6, 4, dtype=fg.float64)
    target = fg.randn(6, 4, dtype=fg.float64) if isinstance(loss, nn.MSELoss) else fg.randint(0, 4, (6,))
    each = loss.unreduced()(input, target)
    assert loss.reduction == "mean"
    assert each.shape[0] == 6
    np.testing.assert_allclose(each.mean().item(), loss(input, target).item(), rtol=1e-12)


def test_hinge_losses_differ_by_the_number_of_classes() -> None:
    scores, labels = fg.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]]), fg.tensor([0, 1, 2])
    assert nn.MulticlassHingeLoss()(scores, labels).item() == pytest.approx(5.2667, abs=1e-4)
    assert nn.MultiMarginLoss()(scores, labels).item() == pytest.approx(5.2667 / 3, abs=1e-4)


def test_cross_entropy_counts_only_rows_not_ignored() -> None:
    scores = fg.randn(4, 3, dtype=fg.float64)
    whole = nn.CrossEntropyLoss()(scores[:2], fg.tensor([0, 2])).item()
    assert nn.CrossEntropyLoss(ignore_index=1)(scores, fg.tensor([0, 2, 1, 1])).item() == pytest.approx(whole)


def test_cross_entropy_is_finite_for_huge_logits() -> None:
    scores = fg.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = nn.CrossEntropyLoss()(scores, fg.tensor([1]))
    loss.backward()
    assert loss.item() == 2e4
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1.0, -1.0, 0.0]]


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_named(label: int) -> None:
    with pytest.raises(fg.LabelError, match=str(label)):
        nn.CrossEntropyLoss()(fg.zeros(2, 3), fg.tensor([0, label]))


def test_loss_options_are_checked() -> None:
    with pytest.raises(fg.ConfigError, match="reduction"):
        nn.MSELoss(reduction="avg")
    with pytest.raises(fg.ConfigError, match="p must be 1 or 2"):
        nn.MulticlassHingeLoss(p=3)
    with pytest.raises(fg.ConfigError, match="label_smoothing"):
        nn.CrossEntropyLoss(label_smoothing=1.5)


# Initial values


def test_initialisers_have_their_spread() -> None:
    weight = fg.empty(300, 200)
    for draw, std in (
        (nn.init.xavier_uniform_, math.sqrt(2 / 500)),
        (nn.init.xavier_normal_, math.sqrt(2 / 500)),
        (nn.init.kaiming_uniform_, math.sqrt(2 / 200)),
        (nn.init.kaiming_normal_, math.sqrt(2 / 200)),
        (nn.init.normal_, 1.0),
    ):
        assert draw(weight) is weight
        assert weight.numpy().std() == pytest.approx(std, rel=0.02)
        assert abs(weight.numpy().mean()) < 0.02 * std * 3


def test_initialisers_write_parameters_while_recording() -> None:
    layer = nn.Linear(3, 3)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    assert layer.weight.requires_grad
    assert layer(fg.tensor([[1.0, 2.0, 3.0]])).tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
def test_orthogonal_rows_or_columns(shape: tuple[int, int]) -> None:
    matrix = nn.init.orthogonal_(fg.empty(*shape, dtype=fg.float64)).numpy()
    small = matrix @ matrix.T if shape[0] < shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-12)


def test_truncated_normal_stays_inside() -> None:
    values = nn.init.trunc_normal_(fg.empty(5000), std=2.0, a=-1.0, b=0.5).numpy()
    assert values.min() >= -1.0
    assert values.max() <= 0.5
    with pytest.raises(fg.ConfigError):
        nn.init.trunc_normal_(fg.empty(1), a=50.0, b=60.0)


def test_sparse_empties_the_share_of_each_column() -> None:
    values = nn.init.sparse_(fg.empty(10, 6), sparsity=0.3).numpy()
    assert ((values == 0).sum(axis=0) == 3).all()


def test_a_generator_makes_the_draw_repeatable() -> None:
    draws = []
    for _ in range(2):
        generator = fg.Generator().manual_seed(7)
        draws.append(nn.init.kaiming_uniform_(fg.empty(3, 3), generator=generator).tolist())
    assert draws[0] == draws[1]


def test_manual_seed_repeats_a_model() -> None:
    models = []
    for _ in range(2):
        fg.manual_seed(5)
        models.append(state_bytes(nn.Linear(3, 2)))
    assert models[0] == models[1]


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    nn.Linear(1, 1).save(path)
    before = path.read_bytes()
    with pytest.raises(fg.ConfigError, match="at most 4096 tensors"):
        nn.ModuleList([nn.Linear(1, 1) for _ in range(2049)]).save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: nn.init.uniform_(w, 2.0, 1.0), "uniform_: a must be at most b"),
        (lambda w: nn.init.uniform_(w, float("nan"), 1.0), "uniform_: a must be a finite number, got nan"),
        (lambda w: nn.init.normal_(w, 0.0, -1.0), "normal_: std must be at least 0, got -1.0"),
        (lambda w: nn.init.sparse_(w, 2.0), r"sparse_: sparsity must be in \[0, 1\], got 2.0"),
        (lambda w: nn.init.orthogonal_(w, gain="g"), "orthogonal_: gain must be a finite number, got 'g'"),
        (lambda w: nn.init.kaiming_normal_(w, a="x"), "kaiming_normal_: a must be a finite number, got 'x'"),
        (lambda w: nn.init.xavier_normal_(w, gain=-1.0), "std must be at least 0"),
    ],
)
def test_initialisers_refuse_what_is_no_distribution(call: Any, message: str) -> None:
    weight = fg.ones(2, 3)
    with pytest.raises(fg.ConfigError, match=message):
        call(weight)
    assert weight.tolist() == [[1.0] * 3] * 2
