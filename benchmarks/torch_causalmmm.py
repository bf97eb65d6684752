"""CausalMMM in PyTorch as its authors run it: eager, one shop a step, edges gathered pair by pair, a loop over time.

The form of their code (`quirks=True` of `wmjax.graph.causalmmm`, whose parameters it takes and whose loss it computes).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wmjax.graph.causalmmm import NORMS, CausalMMMConfig


class Network:
    """The network with its running batch statistics.

    Args:
        params: of `causalmmm.init`, as arrays by name.
        cfg: sizes; `quirks` has to be true.
    """

    def __init__(self, params: Mapping[str, Mapping[str, Any]], cfg: CausalMMMConfig) -> None:
        self.torch = torch = importlib.import_module("torch")
        self.cfg = cfg
        self.params = {
            name: {k: torch.tensor(np.asarray(v), requires_grad=True) for k, v in own.items()}
            for name, own in params.items()
        }
        self.running = {name: (torch.zeros(cfg.hidden), torch.ones(cfg.hidden)) for name in NORMS}

    def leaves(self) -> list[Any]:
        """List what is learnt."""
        return [leaf for own in self.params.values() for leaf in own.values()]

    def dense(self, name: str, x: Any) -> Any:
        """Apply a layer."""
        own = self.params[name]
        return self.torch.addmm(own["b"], x, own["w"]) if "b" in own else x @ own["w"]

    def block(self, name: str, x: Any, training: bool) -> Any:
        """Two layers with ELU, then batch normalisation over the shop's own rows."""
        F = self.torch.nn.functional
        x = F.elu(self.dense(f"{name}_out", F.elu(self.dense(f"{name}_in", x))))
        norm, (mean, var) = self.params[f"norm_{name}"], self.running[name]
        return F.batch_norm(x, mean, var, norm["scale"], norm["shift"], training=training, momentum=0.1, eps=1e-5)

    def loss(self, values: Any, context: Any, noise: Any, *, training: bool = True) -> Any:
        """Compute a shop's loss.

        Args:
            values: `[times, nodes]`.
            context: `[contexts]`.
            noise: Gumbel, `[pairs, 2]`, pairs by sender and then receiver.
            training: normalise by the shop's own statistics and move the running ones, or use the running ones.
        """
        torch, cfg = self.torch, self.cfg
        n = values.shape[1]
        sender, receiver = (torch.from_numpy(a) for a in np.nonzero(~np.eye(n, dtype=bool)))
        node = self.block("node", values.T, training)
        skip = self.block("edge", torch.cat([node[receiver], node[sender]], 1), training)
        heard = torch.zeros(n, cfg.hidden).index_add(0, receiver, skip) / n
        heard = self.block("heard", heard, training)
        last = self.block("last", torch.cat([heard[receiver], heard[sender], skip], 1), training)
        logits = self.dense("logit", last)
        gate = torch.softmax((logits + noise) / cfg.temperature, 1)[:, 1:]
        predictions = self.decode(gate, values, context, sender, receiver)
        probability = torch.softmax(logits, 1)
        kl = (probability * torch.log_softmax(logits, 1)).sum() / n
        nll = ((predictions - values[1:]) ** 2).sum() / (2 * cfg.variance) / n
        return cfg.kl_weight * kl + nll

    def decode(self, gate: Any, values: Any, context: Any, sender: Any, receiver: Any) -> Any:
        """Predict the next value at every time, the last `horizon - 1` from the network's own predictions."""
        torch, own = self.torch, self.params
        times, n = values.shape
        fed = min(max(times - self.cfg.horizon + 1, 1), times - 1)
        shape = torch.clamp(context @ own["shape"]["w"] + own["shape"]["b"], min=0.1)
        half = torch.clamp(context @ own["half"]["w"] + own["half"]["b"], min=0.1)
        memory, out = torch.zeros(n, self.cfg.hidden), []
        for t in range(times - 1):
            now = (values[t] if t < fed else out[-1])[:, None]
            pair = torch.cat([memory[sender], memory[receiver]], 1)
            message = gate * torch.tanh(self.dense("message_out", torch.tanh(self.dense("message_in", pair))))
            heard = torch.zeros(n, self.cfg.hidden).index_add(0, receiver, message) / n
            reset = torch.sigmoid(self.dense("reset_value", now) + self.dense("reset_heard", heard))
            update = torch.sigmoid(self.dense("update_value", now) + self.dense("update_heard", heard))
            new = torch.sigmoid(self.dense("new_value", now) + reset * self.dense("new_heard", heard))
            memory = (1 - update) * new + update * memory
            read = torch.relu(self.dense("out_2", torch.relu(self.dense("out_1", memory))))
            read = self.dense("out_3", read)[:, 0]
            floor = torch.clamp(read[-1:], min=0.1)
            out.append(torch.cat([read[:-1], floor**shape / (floor**shape + half**shape) * read[-1:]]))
        return torch.stack(out)


def epoch(
    params: Mapping[str, Mapping[str, Any]], values: np.ndarray, learnt: int, *, rate: float, cfg: CausalMMMConfig
) -> Callable[[], Any]:
    """Give a call that learns from the first `learnt` shops, one a step, and validates on the others.

    Args:
        values: `[shops, times, nodes]`.
    """
    own = Network(params, cfg)
    torch = own.torch
    adam = torch.optim.Adam(own.leaves(), lr=rate)
    shops, _, n = values.shape
    series, context = torch.tensor(np.asarray(values)), torch.zeros(cfg.contexts)

    def noise() -> Any:
        return -torch.log(1e-10 - torch.log(torch.rand(n * (n - 1), 2) + 1e-10))

    def run() -> Any:
        for shop in range(learnt):
            adam.zero_grad()
            own.loss(series[shop], context, noise()).backward()
            adam.step()
        with torch.no_grad():
            return [own.loss(series[shop], context, noise(), training=False) for shop in range(learnt, shops)]

    return run
