"""Devices as a plain axis: how many there are, and how equal shares are laid over them."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"


ENVIRONMENT = "JAX_NUM_CPU_DEVICES"
"""By which JAX is told how many devices to make of a CPU."""


def num_cores() -> int:
    """Count the cores that this process may use; 1 where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def chosen() -> bool:
    """Say whether the environment has its own choice of devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    return "xla_force_host_platform_device_count" in flags or bool(os.environ.get(ENVIRONMENT))


def use_cores(count: int | None = None) -> None:
    """Make each core of this machine a device of its own, where JAX runs on a CPU.

    Small programs use one core however many there are; laid over devices, independent ones use all. Call it before
    JAX is used, as a command does; later it changes nothing. The environment's own choice is left alone.

    Args:
        count: how many devices; by default as many as cores.
    """
    if chosen():
        return
    try:
        jax.config.update("jax_num_cpu_devices", count or num_cores())
    except RuntimeError:
        return  # JAX is in use already


def mesh(count: int) -> Mesh | None:
    """Lay `count` equal shares over as many of this process's devices as divide it; None where that is one."""
    devices = jax.local_devices()
    lanes = max(n for n in range(1, len(devices) + 1) if count % n == 0)
    return None if lanes == 1 else Mesh(np.array(devices[:lanes]), (AXIS,))


class Layout(NamedTuple):
    """Devices over which members lie in shares (`mesh`), or all of which work on every member's rows (`share`)."""

    mesh: Mesh | None
    share: Mesh | None


LEAST_ROWS = 32
"""Rows of a step that a device must have, or adding up what devices found costs more than they save."""


def layout(members: int, rows: int) -> Layout:
    """Lay members over devices; where not even two divide them, share the rows of a step on a CPU.

    Args:
        members: how many models are trained.
        rows: of a step of one model, which may be cut into equal shares.
    """
    own = mesh(members)
    if own is not None or jax.default_backend() != "cpu":
        return Layout(own, None)
    most = max(1, min(jax.local_device_count(), rows // LEAST_ROWS))
    lanes = max(n for n in range(1, most + 1) if rows % n == 0)
    return Layout(None, None if lanes == 1 else Mesh(np.array(jax.local_devices()[:lanes]), (AXIS,)))


def spare_bytes(device: Any, lanes: int) -> int:
    """Half of what the device has free; where it does not tell, its share of half of the machine's memory.

    `lanes` is how many devices work at once: those of one processor share its memory.
    """
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return (stats["bytes_limit"] - stats.get("bytes_in_use", 0)) // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 // lanes


def sharding(x: Any, on: Mesh, count: int) -> NamedSharding:
    """Say where a leaf belongs: equal shares of its first axis if that has length `count`, else a copy everywhere.

    An array of no numbers has no shares: JAX itself puts it everywhere, and to say otherwise is another program.
    """
    shared = np.ndim(x) > 0 and np.shape(x)[0] == count and 0 not in np.shape(x)
    return NamedSharding(on, PartitionSpec(AXIS) if shared else PartitionSpec())


def place(tree: Any, on: Mesh, count: int) -> Any:
    """Put every leaf where it belongs."""
    return jax.tree.map(lambda x: jax.device_put(x, sharding(x, on, count)), tree)


def keep(tree: Any, on: Mesh, count: int) -> Any:
    """Hold every leaf where it belongs, inside a compiled program."""
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding(x, on, count)), tree)


def shared(tree: Any, on: Mesh | None) -> Any:
    """Lay the first axis of every leaf over the devices, inside a compiled program; as it is where there are none."""
    if on is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, NamedSharding(on, PartitionSpec(AXIS))), tree)


def gather(tree: Any) -> Any:
    """Bring every leaf back to the default device, bound to none."""

    def one(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.array(np.asarray(jax.random.key_data(x))), impl=jax.random.key_impl(x))
        return jnp.array(np.asarray(x))

    return jax.tree.map(one, tree)
