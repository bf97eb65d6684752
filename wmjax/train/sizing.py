"""How many members are trained side by side: as many as the predicted bytes of the compiled programs allow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from wmjax.core import devices
from wmjax.core.errors import UserError
from wmjax.train import state as states
from wmjax.train.state import Rule

TURNS = 8
"""Sizes tried before one member at a time is."""
LESS = 0.9
"""Of what should fit, for what does not grow in proportion."""


def side_by_side(
    program: Callable[[int | None], tuple[Any, Rule]],
    call: Any,
    begin: tuple[Any, ...],
    key: Any,
    data: Any,
    budget: int | None,
) -> int | None:
    """Choose how many members a device computes at once; None is all of its own.

    The programs of all members at once are compiled first. They are the ones that will run, and are not compiled again,
    where they fit; else smaller ones are, until they do.

    Args:
        program: gives the compiled start of all members and the rule of an epoch, for so many side by side.
        call: the jitted function that calls the start, `call(*begin, fn=start)`.
        begin, key, data: the arguments, of the start and of the epochs.
        budget: bytes on each device; None is `devices.spare_bytes`, which the devices of one processor share.

    Raises:
        UserError: not even one member at a time fits.
    """
    mesh = program(None)[1].mesh
    lanes, device = (1, jax.local_devices()[0]) if mesh is None else (mesh.size, mesh.devices.flat[0])
    limit = budget
    if limit is None:
        limit = devices.spare_bytes(device, lanes)
    whole = size = key.shape[0] // lanes
    for turn in range(TURNS + 1):
        stands, total = _bytes(*program(None if size == whole else size), call, begin, key, data)
        if total <= limit:
            return None if size == whole else size
        if size == 1:
            raise UserError(
                f"{key.shape[0]} models, one at a time on each device, take {total / 2**20:.3g} MiB and the budget is "
                f"{limit / 2**20:.3g} MiB; give a larger budget_bytes, or train fewer together"
            )
        room = LESS * (limit - stands) / max(total - stands, 1)
        most = 1 if turn == TURNS - 1 else max(1, min(size - 1, int(size * room)))
        # Equal shares: the last turn costs as much as the others.
        size = -(-whole // -(-whole // most))
    raise AssertionError("the last turn is of one member")


def _bytes(first: Any, rule: Rule, call: Any, begin: tuple[Any, ...], key: Any, data: Any) -> tuple[int, int]:
    """Predict what stands whatever the size, arguments and results, and all: the larger of the start and an epoch."""
    model = jax.eval_shape(partial(call, fn=first), *begin)
    train = jax.eval_shape(partial(states.begin, rule=rule), model)
    like = partial(_like, rule=rule)
    args = (like(key, key.shape[0]), like(train, key.shape[0]), like(data, -1))
    found = [call.lower(*begin, fn=first), states.advance.lower(*args, rule=rule)]
    told = [program.compile().memory_analysis() for program in found]
    stand = [m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes for m in told]
    totals = [s + m.temp_size_in_bytes for s, m in zip(stand, told, strict=True)]
    return stand[totals.index(max(totals))], max(totals)


def _like(tree: Any, count: int, *, rule: Rule) -> Any:
    """Give the shapes as a run places them, so that what is compiled here is what runs."""

    def one(x: Any) -> jax.ShapeDtypeStruct:
        on = None if rule.mesh is None else devices.sharding(x, rule.mesh, count)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on)

    return jax.tree.map(one, jax.eval_shape(lambda t: t, tree))
