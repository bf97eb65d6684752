"""The media world's three-stream transformer in PyTorch, as one would write it there, for a training step beside ours.

What is faster there is taken: units side by side in one batch, the streams' equal layers and their three attentions as
batched products, fused AdamW, PyTorch's own dropout, `torch.compile` where a compiler is there. Parameters have our
shapes and may be set to ours, so that both can be compared number by number.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from wmjax.transformer.config import MMMConfig
from wmjax.transformer.network import Series


class Network:
    """The `free` network on batches of units; `params` is our tree of arrays."""

    def __init__(self, params: Any, series: Series, code: np.ndarray, cfg: MMMConfig) -> None:
        self.torch = torch = importlib.import_module("torch")
        as_leaf = lambda x: torch.from_numpy(np.array(x, np.float32)).requires_grad_()  # noqa: E731
        self.params = _map(as_leaf, params)
        self.leaves: list[Any] = []
        _map(self.leaves.append, self.params)
        self.cfg, self.training = cfg, False
        self.code = torch.from_numpy(np.array(code, np.float32))
        self.data = tuple(torch.from_numpy(np.array(x, np.float32)) for x in series[:4])
        time = self.data[0].shape[1]
        at = torch.arange(time)
        self.seen = at[:, None] >= at[None, :]
        self.at = torch.clip(at[None, :] - at[:, None], -cfg.reach, cfg.reach) + cfg.reach

    def drop(self, x: Any) -> Any:
        """Drop units in training."""
        return self.torch.nn.functional.dropout(x, self.cfg.dropout, self.training)

    def norm(self, p: Any, x: Any) -> Any:
        """Standardise the last axis; scale and offset may have an axis of streams in front."""
        y = self.torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
        lead = (*p["scale"].shape[:-1], *(1,) * (x.ndim - p["scale"].ndim), -1)
        return y * p["scale"].reshape(lead) + p["offset"].reshape(lead)

    def dense(self, p: Any, x: Any) -> Any:
        """Apply one layer, or equal layers to as many inputs `[n, .., width]`."""
        if p["w"].ndim == 2:
            return self.torch.nn.functional.linear(x, p["w"].T, p["b"])
        n, inputs, outputs = p["w"].reshape(-1, *p["w"].shape[-2:]).shape
        flat = self.torch.baddbmm(
            p["b"].reshape(n, 1, outputs), x.reshape(n, -1, inputs), p["w"].reshape(n, inputs, -1)
        )
        return flat.reshape(*x.shape[:-1], outputs)

    def attend(self, query: Any, keys: Any, values: Any, relative: Any) -> Any:
        """Attend: `[n, units, time, width]` each, `n` attentions side by side."""
        torch, cfg = self.torch, self.cfg
        n, units, time, width = query.shape
        split = lambda x: x.reshape(n * units, time, cfg.heads, -1).transpose(1, 2)  # noqa: E731
        q, k, v = split(query), split(keys), split(values)
        if relative is None:
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return out.transpose(1, 2).reshape(n, units, time, width)
        # Relative positions as one product a query's time: [time, n units heads, size] with [time, size, rows].
        by_time = lambda x: x.permute(2, 0, 1, 3).reshape(time, -1, x.shape[-1])  # noqa: E731
        back = lambda x: x.reshape(time, n * units, cfg.heads, -1).permute(1, 2, 0, 3)  # noqa: E731
        score = q @ k.transpose(-1, -2) + back(by_time(q) @ relative[0].transpose(1, 2))
        weight = torch.softmax((score / math.sqrt(q.shape[-1])).masked_fill(~self.seen, -1e9), dim=-1)
        weight = self.drop(weight)
        out = weight @ v + back(by_time(weight) @ relative[1])
        return out.transpose(1, 2).reshape(n, units, time, width)

    def block(self, p: Any, x: Any, static: Any, relative: Any) -> Any:
        """Run the three streams' layers, `[3, units, time, width]`."""
        torch, functional = self.torch, self.torch.nn.functional
        own = self.norm(p["norm_self"], x)
        heard = torch.stack([torch.roll(x, -1, 0), torch.roll(x, -2, 0)], dim=1)
        inputs = torch.cat([own[:, None], self.norm(p["norm_memory"], heard)], dim=1)
        attention = p["attention"]
        keys, values = (self.dense(attention[name], inputs) for name in ("key", "value"))
        part = lambda name, at: {key: value[:, at] for key, value in attention[name].items()}  # noqa: E731
        first = self.attend(self.dense(part("query", 0), own), keys[:, 0], values[:, 0], relative)
        x = x + self.drop(self.dense(part("out", 0), first))
        h = self.norm(p["norm_cross"], x)
        both = slice(1, 3)
        query = self.dense(part("query", both), torch.stack([h, h], dim=1))
        merge = lambda y: y.reshape(-1, *y.shape[2:])  # noqa: E731
        said = self.attend(merge(query), merge(keys[:, both]), merge(values[:, both]), relative)
        said = self.dense(part("out", both), said.reshape(query.shape))
        x = x + self.drop(said).sum(1) + static
        h = self.norm(p["norm_feed"], x)
        h = self.drop(functional.gelu(self.dense(p["feed_in"], h), approximate="tanh"))
        return x + self.drop(self.dense(p["feed_out"], h))

    def tokens(self, spend: Any) -> Any:
        """Pool the channels' tokens: `[units, time, width]`."""
        torch, cfg, p = self.torch, self.cfg, self.params["tokens"]
        octaves = 2.0 ** torch.arange(cfg.frequencies)
        angle = math.pi * spend[..., None] * octaves
        damped = torch.cat([torch.sin(angle) / octaves, torch.cos(angle) / octaves], dim=-1)
        coded = torch.cat([damped, spend[..., None], (spend > 0).float()[..., None]], dim=-1)
        tok = self.dense(p["spend_out"], torch.nn.functional.gelu(self.dense(p["spend_in"], coded), approximate="tanh"))
        tok = tok + self.dense(p["code"], self.code)
        h = self.norm(p["norm"], tok).flatten(0, 1)[None]
        across = p["across"]
        query, key, value = (self.dense(across[name], h) for name in ("query", "key", "value"))
        said = self.attend(query, key, value, None)
        return (tok + self.dense(across["out"], said[0]).reshape(tok.shape)).mean(2)

    def forward(self) -> Any:
        """Predict every unit's outcomes, `[units, time]`."""
        torch, p = self.torch, self.params
        spend, covariates, outcome, static = self.data
        shift = lambda x: torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]  # noqa: E731
        spent = self.tokens(spend)
        inputs = (
            shift(spent),
            self.dense(p["covariates"], covariates),
            self.dense(p["outcome"], shift(outcome[..., None])),
        )
        x = torch.stack(inputs)
        fixed = self.dense(p["static"], static)[:, None]
        relative = tuple(p["relative"][name][self.at] for name in ("key", "value"))
        for at in range(self.cfg.blocks):
            x = self.block(_map(lambda leaf, at=at: leaf[at], p["streams"]), x, fixed, relative)
        elu = torch.nn.functional.elu
        phi = elu(self.dense(p["represent"], self.norm(p["norm"], x).mean(0)))
        h = elu(self.dense(p["head_in"], torch.cat([phi, spent], dim=-1)))
        return self.dense(p["head_out"], h)[..., 0]


def _map(fn: Callable[..., Any], tree: Any) -> Any:
    return {name: _map(fn, tree[name]) for name in sorted(tree)} if isinstance(tree, dict) else fn(tree)


def step(network: Network, *, rate: float, decay: float, clip: float, compiled: bool) -> Callable[[], float]:
    """Return a call that takes one training step: forward, backward, clipped, AdamW."""
    torch = network.torch
    network.training = True
    adam = torch.optim.AdamW(network.leaves, lr=rate, weight_decay=decay, fused=True)
    forward = torch.compile(network.forward) if compiled else network.forward

    def call() -> float:
        adam.zero_grad(set_to_none=True)
        loss = torch.mean((forward() - network.data[2]) ** 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([x for x in network.leaves if x.grad is not None], clip)
        adam.step()
        return float(loss.detach())

    return call
