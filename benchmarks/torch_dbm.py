"""The same epoch in PyTorch, as one would write it there: layer by layer, one batch after another, gradients by hand.

What is faster there is taken: gradients by hand instead of automatic differentiation of the score, fused Adam, draws by
a comparison with uniform numbers (`torch.bernoulli` of a tensor is three times as slow on a CPU). Rows, machine and
chains live on one device.
"""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np


class Machine:
    """A deep Boltzmann machine of bits and its persistent chains; weights `[lower, upper]`, biases of every layer.

    Args:
        sizes: units of every layer, the visible one first.
        rate, decay: Adam's learning rate, and the L2 that is added to the gradient before it.
        double: weigh the gradient of couplings between hidden layers by two, as the published score does.
        device: `cpu` or `cuda`.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        rate: float,
        decay: float,
        double: bool,
        chains: int = 128,
        device: str = "cpu",
    ) -> None:
        self.torch = torch = importlib.import_module("torch")
        torch.manual_seed(0)
        self.weights = [0.01 * torch.randn(a, b, device=device) for a, b in itertools.pairwise(sizes)]
        self.biases = [torch.zeros(n, device=device) for n in sizes]
        self.chains = [torch.bernoulli(torch.full((chains, n), 0.5, device=device)) for n in sizes]
        self.adam = torch.optim.Adam([*self.weights, *self.biases], lr=rate, weight_decay=decay, fused=True)
        self.factor = [1.0] + [2.0 if double else 1.0] * (len(sizes) - 2)

    def field(self, layers: list[Any], at: int) -> Any:
        """Add up what a layer hears from its neighbours."""
        heard = self.biases[at]
        if at > 0:
            heard = self.torch.addmm(heard, layers[at - 1], self.weights[at - 1])
        if at < len(self.weights):
            heard = self.torch.addmm(heard, layers[at + 1], self.weights[at].T)
        return heard

    def draw(self, means: Any) -> Any:
        """Draw bits of these means."""
        return self.torch.rand_like(means).lt_(means)

    def infer(self, visible: Any, sweeps: int, *, bottom_only: bool = False) -> list[Any]:
        """Infer hidden means by sequential mean field from one half; what the visible layer says is multiplied once.

        With `bottom_only` it ends as soon as the first hidden layer is final.
        """
        below = self.torch.addmm(self.biases[1], visible, self.weights[0])
        rows = visible.shape[0]
        layers = [visible, *(self.torch.full((rows, b.shape[0]), 0.5, device=b.device) for b in self.biases[1:])]
        for sweep in range(sweeps):
            first = self.torch.addmm(below, layers[2], self.weights[1].T) if len(layers) > 2 else below
            layers[1] = self.torch.sigmoid(first)
            if bottom_only and sweep == sweeps - 1:
                break
            for at in range(2, len(layers)):
                layers[at] = self.torch.sigmoid(self.field(layers, at))
        return layers

    def block(self, steps: int) -> list[Any]:
        """Move the chains by block Gibbs; return them with the even layers' means."""
        layers, even = self.chains, range(0, len(self.biases), 2)
        means = list(layers)
        for _ in range(steps):
            for at in range(1, len(layers), 2):
                layers[at] = self.draw(self.torch.sigmoid(self.field(layers, at)))
            for at in even:
                means[at] = self.torch.sigmoid(self.field(layers, at))
                layers[at] = self.draw(means[at])
        return [means[at] if at in even else layer for at, layer in enumerate(layers)]

    def visible(self, steps: int, sweeps: int) -> list[Any]:
        """Move the published chains: mean field, h1 drawn from its means, v drawn given h1."""
        torch = self.torch
        for _ in range(steps):
            bottom = self.draw(self.infer(self.chains[0], sweeps, bottom_only=True)[1])
            self.chains[0] = self.draw(torch.sigmoid(torch.addmm(self.biases[0], bottom, self.weights[0].T)))
        return self.infer(self.chains[0], sweeps)

    def update(self, rows: Any, *, chains: str, steps: int = 5, sweeps: int = 10) -> None:
        """Take one step of Adam on a batch."""
        data = self.infer(rows, sweeps)
        model = self.block(steps) if chains == "block" else self.visible(steps, sweeps)
        for at, weight in enumerate(self.weights):
            on_data = data[at].T @ data[at + 1] / len(rows)
            weight.grad = self.factor[at] * (model[at].T @ model[at + 1] / len(model[at]) - on_data)
        for at, bias in enumerate(self.biases):
            bias.grad = model[at].mean(0) - data[at].mean(0)
        self.adam.step()


def epoch(data: np.ndarray, sizes: tuple[int, ...], *, chains: str, batch: int = 128, device: str = "cpu") -> Any:
    """Return a call that trains one epoch on rows of bits, kept in bytes."""
    torch = importlib.import_module("torch")
    published = chains == "visible"
    rows = torch.from_numpy(data).to(device)
    machine = Machine(sizes, rate=1e-5 if published else 1e-3, decay=1e-4, double=published, device=device)

    def call() -> None:
        with torch.no_grad():
            for index in torch.randperm(len(rows), device=device)[: len(rows) // batch * batch].reshape(-1, batch):
                machine.update(rows[index].float(), chains=chains)
            if device != "cpu":
                torch.cuda.synchronize()

    return call
