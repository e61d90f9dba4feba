"""The explicit graph, and gates written in Python."""

from typing import Any

import numpy as np
import pytest

import ferrograd as fg


class Multiply:
    """z = x y, as the lectures write it."""

    def forward(self, x: Any, y: Any) -> Any:
        self.x, self.y = x, y
        return x * y

    def backward(self, dout: Any) -> Any:
        return dout * self.y, dout * self.x


class SumAndDifference:
    """Two outputs."""

    def forward(self, x: Any, y: Any) -> Any:
        return x + y, x - y

    def backward(self, dout: Any) -> Any:
        d_sum, d_difference = dout
        return d_sum + d_difference, d_sum - d_difference


class Broken:
    """Raises its own error."""

    def forward(self, x: Any) -> Any:
        raise KeyError("mine")

    def backward(self, dout: Any) -> Any:
        raise LookupError("also mine")


def circuit() -> tuple[fg.Graph, dict[str, fg.Node]]:
    """f = (x + y) z."""
    g = fg.Graph()
    x, y, z = g.input("x"), g.input("y"), g.input("z")
    q = g.add("add", x, y, name="q")
    f = g.add("mul", q, z, name="f")
    g.output(f)
    return g, {"x": x, "y": y, "z": z, "q": q, "f": f}


def test_the_lectures_first_circuit() -> None:
    g, nodes = circuit()
    # x = -2, y = 5, z = -4: f = -12, df/dx = -4, df/dy = -4, df/dz = 3
    assert g.forward({"x": -2.0, "y": 5.0, "z": -4.0}).item() == -12
    grads = g.backward()
    assert {name: grad.item() for name, grad in grads.items()} == {"x": -4, "y": -4, "z": 3}
    assert nodes["q"].value.item() == 3
    assert nodes["q"].grad.item() == -4
    assert nodes["f"].grad.item() == 1


def test_nodes_come_in_topological_order_and_its_reverse() -> None:
    g, nodes = circuit()
    order = g.nodes_topologically_sorted()
    assert [node.name for node in order] == ["x", "y", "z", "q", "f"]
    assert g.nodes_topologically_sorted_reverse() == order[::-1]
    assert order[3] == nodes["q"]
    assert len({*order, nodes["q"]}) == 5
    assert nodes["q"].sources == (nodes["x"], nodes["y"])
    assert (nodes["q"].op, nodes["x"].op) == ("add", "input")


def test_a_users_gate_gets_floats_and_its_gradients_flow() -> None:
    g = fg.Graph()
    x, y = g.input("x"), g.input("y")
    gate = Multiply()
    g.output(g.add(gate, x, y))
    assert g.forward({"x": 3.0, "y": -4.0}).item() == -12
    assert type(gate.x) is float
    assert {name: grad.item() for name, grad in g.backward(2.0).items()} == {"x": -8, "y": 6}


def test_a_users_gate_gets_arrays_for_arrays() -> None:
    g = fg.Graph()
    x = g.input("x")
    gate = Multiply()
    g.output(g.add(gate, x, x))
    value = np.array([1.0, 2.0, 0.1])
    np.testing.assert_array_equal(g.forward({"x": value}).numpy(), value**2)
    assert isinstance(gate.x, np.ndarray)
    assert gate.x.dtype == np.float64
    np.testing.assert_allclose(g.backward()["x"].numpy(), 2 * value)


def test_outputs_of_a_gate_are_picked_by_index() -> None:
    g = fg.Graph()
    x, y = g.input("x"), g.input("y")
    both = g.add(SumAndDifference(), x, y)
    product = g.add("mul", both[0], both[1])
    g.output(product)
    # (x + y)(x - y) = x^2 - y^2
    assert g.forward({"x": 5.0, "y": 3.0}).item() == 16
    assert {name: grad.item() for name, grad in g.backward().items()} == {"x": 10, "y": -6}
    assert [value.item() for value in both.value] == [8, 2]
    assert both[1].value.item() == 2
    assert [grad.item() for grad in both.grad] == [2, 8]


def test_numbers_are_constant_sources_in_the_precision_beside_them() -> None:
    g = fg.Graph()
    x = g.input("x")
    g.output(g.add("mul", g.add("add", x, 1), 0.1))
    result = g.forward({"x": np.float64(2.0).reshape(())})
    assert result.dtype is fg.float64
    assert result.item() == 3.0 * 0.1
    assert g.forward({"x": 2.0}).dtype is fg.float32
    assert set(g.backward()) == {"x"}


def test_late_wiring_and_several_outputs() -> None:
    g = fg.Graph()
    x = g.input("x")
    total = g.add("add", x)
    with pytest.raises(fg.GraphError, match='input 1 of "add" is not connected'):
        g.forward({"x": 1.0})
    g.connect(x, total, 1)
    squared = g.add("square", total)
    g.output(total, squared)
    assert [value.item() for value in g.forward({"x": 3.0})] == [6, 36]
    # 2 a + (2x)^2' b = 2 a + 8 x b
    assert g.backward((1.0, 10.0))["x"].item() == 2 + 240


def test_without_output_the_unconsumed_nodes_are_returned() -> None:
    g = fg.Graph()
    x = g.input("x")
    g.add("sigmoid", g.add("neg", x))
    assert g.forward({"x": 0.0}).item() == 0.5


def test_a_loop_is_named() -> None:
    g = fg.Graph()
    p = g.add("add", g.input("x"), None, name="p")
    q = g.add("neg", p, name="q")
    g.connect(q, p, 1)
    with pytest.raises(fg.CycleError, match=r"p -> q -> p|q -> p -> q"):
        g.nodes_topologically_sorted()
    assert issubclass(fg.CycleError, fg.GraphError)


def test_misuse_is_named() -> None:
    g, nodes = circuit()
    with pytest.raises(fg.GraphError, match="backward before forward"):
        g.backward()
    with pytest.raises(fg.GraphError, match='no value for input "z"'):
        g.forward({"x": 1.0, "y": 1.0})
    with pytest.raises(fg.GraphError, match='no input "w"'):
        g.forward({"x": 1.0, "y": 1.0, "z": 1.0, "w": 1.0})
    with pytest.raises(fg.GraphError, match="is no op"):
        g.add("mull", nodes["x"])
    with pytest.raises(fg.GraphError, match="another graph"):
        g.add("neg", circuit()[1]["x"])
    with pytest.raises(fg.GraphError, match="forward and backward"):
        g.add(object(), nodes["x"])
    with pytest.raises(fg.GraphError, match='name "q" is taken'):
        g.add("neg", nodes["x"], name="q")
    assert nodes["q"].value is None
    assert nodes["q"].grad is None


def test_a_gates_own_error_comes_out_unchanged() -> None:
    g = fg.Graph()
    g.output(g.add(Broken(), g.input("x")))
    with pytest.raises(KeyError, match="mine"):
        g.forward({"x": 1.0})
    with pytest.raises(KeyError, match="mine"):
        fg.gate(Broken())(fg.tensor(1.0))


def test_a_gate_in_tensor_code_gets_arrays_and_has_gradients() -> None:
    gate = Multiply()
    multiply = fg.gate(gate)
    x = fg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = fg.tensor(np.array([3.0, 5.0]), requires_grad=True)
    (multiply(x, y).exp() * 1e-3).sum().backward()
    assert isinstance(gate.x, np.ndarray)
    e = np.exp([3.0, 10.0]) * 1e-3
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), e * [3.0, 5.0])


def test_a_gate_used_twice_has_both_gradients() -> None:
    multiply = fg.gate(Multiply())
    x = fg.tensor(np.array(2.0), requires_grad=True)
    multiply(multiply(x, x), x).backward()
    assert x.grad is not None
    assert x.grad.item() == 12


def test_a_gate_with_several_outputs_returns_a_tuple() -> None:
    x, y = fg.tensor([5.0], requires_grad=True), fg.tensor([3.0], requires_grad=True)
    total, difference = fg.gate(SumAndDifference())(x, y)
    (total * difference).backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([10], [-6])


def test_create_graph_through_a_gate_is_refused() -> None:
    x = fg.tensor([2.0], requires_grad=True)
    with pytest.raises(fg.GraphError, match="create_graph"):
        fg.autograd.grad(fg.gate(Multiply())(x, x).sum(), x, create_graph=True)


def test_a_gradient_of_the_wrong_shape_is_named() -> None:
    class Wrong(Multiply):
        def backward(self, dout: Any) -> Any:
            return np.zeros(3), np.zeros(2)

    x = fg.ones(2, requires_grad=True)
    with pytest.raises(fg.ShapeError, match="Wrong's input gradients"):
        fg.gate(Wrong())(x, x).sum().backward()
