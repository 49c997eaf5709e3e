"""Gradients that come from further up: of any layout, and of any size, since backward is linear."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import markovot
import solving


def rows(n: int, seed: int) -> Tensor:
    weights = torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return weights / weights.sum(1, keepdim=True)


# Each gives a differentiable matrix that a loss may use.
OUTPUTS: dict[str, Callable[[Any, Any, Tensor], Tensor]] = {
    "entropic": lambda x, y, cost: markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=0.05).cost_to_go,
    "exact": lambda x, y, cost: markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=0.0).cost_to_go,
    "large": lambda x, y, cost: markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=0.3).cost_to_go,
    "depth": lambda x, y, cost: markovot.wl(x, y, cost, depth=3, epsilon=0.05).cost_to_go,
    "tail": lambda x, y, cost: markovot.horizon_wl(x, y, cost, law=LAW, tail=0.3, epsilon=0.05).cost_to_go,
    "average": lambda x, y, cost: markovot.optimal_transition_coupling(x, y, cost, epsilon=0.05).value[None, None],
    "law": lambda x, y, cost: markovot.stationary_distribution(x)[None] + 0.0 * cost.sum(),
    "transport": lambda x, y, cost: markovot.transport_cost(x[:, None], y[None], cost, epsilon=0.05).value,
}
LAW = torch.tensor([0.4, 0.6], dtype=torch.float64)
WEIGHTS = torch.rand(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) - 0.3


def gradients(output: Callable[..., Tensor], loss: Callable[[Tensor], Tensor], layout: str, size: int) -> list[Tensor]:
    x, cost = rows(size, 0).requires_grad_(), torch.rand(size, 3, dtype=torch.float64, generator=torch.Generator())
    cost.requires_grad_()
    chain: Any = x
    if layout == "sparse":
        chain = solving.chain(x, "uniform", "sparse")
    loss(output(chain, rows(3, 1), cost)).backward()
    return [x.grad, cost.grad]


CASES = [(name, "dense") for name in OUTPUTS] + [(name, "sparse") for name in ("entropic", "exact", "depth", "tail")]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_any_layout_and_any_size_of_upstream_gradients(name, layout):
    output, size = OUTPUTS[name], 42 if name == "large" else 4

    def weight(found: Tensor) -> Tensor:
        n, m = found.shape
        return WEIGHTS.repeat(6, 1)[:n, :m]

    def weighted(found: Tensor) -> Tensor:
        return (found * weight(found)).sum()

    plain = gradients(output, weighted, layout, size)
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "transposed": lambda found: (found.mT * weight(found).mT.contiguous()).sum(),
        "expanded": lambda found: (found.expand(2, *found.shape) * 0.5 * weight(found)).sum(),
        "flipped": lambda found: (found.flip(1) * weight(found).flip(1)).sum(),
        "by columns": lambda found: sum((found * weight(found))[:, k].sum() for k in range(found.shape[1])),
    }
    for what, loss in losses.items():
        for ours, theirs in zip(gradients(output, loss, layout, size), plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12, msg=lambda text, at=what: f"{at}: {text}")
    for scale in (1e-300, 1e-30, 1e30, 1e290):
        scaled = gradients(output, lambda found, scale=scale: scale * weighted(found), layout, size)
        for ours, theirs in zip(scaled, plain, strict=True):
            torch.testing.assert_close(ours / scale, theirs, rtol=1e-8, atol=1e-12)


def test_a_batch_whose_items_differ_in_scale():
    cost = torch.rand(3, 4, 3, dtype=torch.float64, generator=torch.Generator()).requires_grad_()
    found = markovot.discounted_wl(rows(4, 0), rows(3, 1), cost, delta=0.2, epsilon=0.05)
    scales = torch.tensor([1e-200, 0.0, 1e200], dtype=torch.float64)
    (scales * found.value).sum().backward()
    for item, scale in enumerate(scales.tolist()):
        torch.testing.assert_close(cost.grad[item], scale * found.alignment[item].detach(), rtol=1e-8, atol=0)


def test_what_is_not_finite_stays_so_in_its_item_alone():
    cost = torch.rand(2, 4, 3, dtype=torch.float64, generator=torch.Generator()).requires_grad_()
    found = markovot.discounted_wl(rows(4, 0), rows(3, 1), cost, delta=0.2, epsilon=0.05)
    upstream = torch.zeros_like(found.cost_to_go)
    upstream[0, 1, 2], upstream[1, 0, 0] = torch.nan, 1.0
    found.cost_to_go.backward(upstream)
    assert cost.grad[0].isnan().all()
    assert cost.grad[1].isfinite().all()


def test_second_order_and_forward_mode_at_any_scale():
    def value(cost: Tensor) -> Tensor:
        return markovot.discounted_wl(rows(4, 0), rows(3, 1), cost, delta=0.2, epsilon=0.05).value

    cost = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator())
    direction = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator()).mT
    tangent = torch.func.jvp(value, (cost,), (direction,))[1]
    for scale in (1e-250, 1e250):
        scaled = torch.func.jvp(value, (cost,), (scale * direction,))[1]
        torch.testing.assert_close(scaled / scale, tangent, rtol=1e-8, atol=0)
    assert tangent.abs() > 0.01
