import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.errors import UserError
from wmjax.core.visible import Visible
from wmjax.dbm import clamp, conditional
from wmjax.dbm.types import DBMParams

# Units: a softmax group of 3, two bits, another two bits; the bits' groups differ in size and coupling from the store.
LAYER = Visible.pack(
    [
        ("store", "softmax", ("store_a", "store_b", "store_c")),
        ("purchase", "bernoulli", ("purchase_lag1", "purchase_lag2")),
        ("push", "bernoulli", ("push_lag1",)),
    ]
)


def compiled(params, rows, part, **options):
    """Call `conditional` within jit: the alternatives are listed on the host while it is traced."""
    return jax.jit(lambda p, v: conditional.conditional(p, v, part, visible=LAYER, **options))(params, rows)


@pytest.fixture(scope="module")
def params():
    return oracles.machine((6, 4, 3, 2))


@pytest.fixture(scope="module")
def rows():
    return jnp.asarray(oracles.visible_states(LAYER)[[0, 5, 10, 15, 20]], jnp.float32)


def enumerated(params, rows, mask, states=None):
    """Compute -log p(x_A | x_B) from the table of log p(v) of all visible states, or of some alternatives of A."""
    table = {tuple(v): -f for v, f in zip(*all_rows(params), strict=True)}
    out = []
    for row in np.asarray(rows):
        alike = [v for v in table if all(v[i] == row[i] for i in np.flatnonzero(~mask))]
        if states is not None:
            alike = [v for v in alike if any((np.array(v)[mask] == s).all() for s in states)]
        out.append(oracles.log_sum(np.array([table[v] for v in alike])) - table[tuple(row)])
    return out


def all_rows(params):
    states = oracles.visible_states(LAYER)
    return states, oracles.free_energy(params, states, LAYER)


@pytest.mark.parametrize("names", [["purchase"], ["store", "push"]])
def test_conditional_is_minus_log_probability(params, rows, names):
    got = compiled(params, rows, names, kind="exact")
    np.testing.assert_allclose(got, enumerated(params, rows, LAYER.mask(names)), atol=5e-6)


def test_the_whole_layer_given_nothing_is_its_likelihood(params, rows):
    got = compiled(params, rows, np.ones(6, bool), kind="exact")
    np.testing.assert_allclose(got, -oracles.log_likelihood(params, rows, LAYER), atol=5e-6)


def test_a_unit_mask_and_alternatives_that_can_occur(params, rows):
    """Lag 2 implies lag 1 here: three of four states. Row 2 is none of them: its state is added to its own sum."""
    mask = np.array([False, False, False, True, True, False])
    states = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    got = compiled(params, rows, mask, kind="exact", alternatives=states)
    assert rows[2, 3:5].tolist() == [0, 1]
    expected = enumerated(params, rows, mask, states)
    expected[2] = enumerated(params, rows[2:3], mask, [*states, [0.0, 1.0]])[0]
    np.testing.assert_allclose(got, expected, atol=5e-6)
    assert float(got.min()) >= 0


@pytest.mark.parametrize("block", [5, 1])
def test_alternatives_are_summed_in_blocks(params, rows, monkeypatch, block):
    """12 alternatives in blocks of 5, the last padded, and one at a time."""
    monkeypatch.setattr(conditional, "_ROWS_AT_ONCE", block * len(rows))
    got = compiled(params, rows, ["store", "purchase"], kind="exact")
    np.testing.assert_allclose(got, enumerated(params, rows, LAYER.mask(["store", "purchase"])), atol=5e-6)


@pytest.mark.parametrize(("sizes", "scale", "tolerance"), [((6, 4), 1.0, 5e-6), ((6, 4, 3, 2), 0.3, 0.02)])
def test_variational_conditional_is_exact_for_one_layer_and_near_for_weak_couplings(rows, sizes, scale, tolerance):
    params = oracles.machine(sizes, scale=scale)
    got = compiled(params, rows, ["purchase"], sweeps=50)
    np.testing.assert_allclose(got, enumerated(params, rows, LAYER.mask(["purchase"])), atol=tolerance)


def test_parts_that_cannot_be_enumerated_are_refused():
    params, visible = oracles.machine((14, 2)), Visible.bernoulli(14, name="bits")
    v = jnp.zeros((1, 14))
    with pytest.raises(UserError, match=r"16,384 states, at most 4,096"):
        conditional.conditional(params, v, ["bits"], visible=visible)
    with pytest.raises(UserError, match=r"\['price'\] are Gaussian"):
        conditional.conditional(oracles.machine((6, 2)), v[:, :6], ["price"], visible=oracles.MIXED)
    with pytest.raises(UserError, match=r"shape \(3, 2\), must be \[at least 1, 14\]"):
        conditional.conditional(params, v, ["bits"], visible=visible, alternatives=np.zeros((3, 2)))
    with pytest.raises(UserError, match="some categories of 'store'"):
        conditional.part_mask(np.arange(6) < 2, visible=LAYER)
    with pytest.raises(UserError, match="no visible group 'purchases'"):
        conditional.part_mask(["purchases"], visible=LAYER)
    with pytest.raises(UserError, match="no units"):
        conditional.part_mask([], visible=LAYER)
    with pytest.raises(UserError, match="the word 'store'"):
        conditional.part_mask("store", visible=LAYER)
    with pytest.raises(UserError, match="type int64"):
        conditional.part_mask(np.ones(6, np.int64), visible=LAYER)


PURCHASE = ({"purchase_lag1": 0.0, "purchase_lag2": 0.0}, {"purchase_lag1": 1.0, "purchase_lag2": 1.0})
PUSH = ({"push_lag1": 0.0}, {"push_lag1": 1.0})
contrast = jax.jit(
    lambda params, rows, **options: conditional.interaction(params, rows, PURCHASE, PUSH, visible=LAYER, **options),
    static_argnames=("kind", "sweeps"),
)


@pytest.mark.parametrize("kind", ["exact", "variational"])
def test_interaction_of_four_free_energies(params, rows, kind):
    """In float64: enumerated, or the twin's mean field at a fixed point and the plain formula."""

    def free_energy(a, b):
        v = np.asarray(rows, np.float64).copy()
        v[:, 3:5], v[:, 5] = a, b
        if kind == "exact":
            return oracles.free_energy(params, v, LAYER)
        return oracles.variational(params, oracles.mean_field(params, v, sweeps=400))

    expected = (free_energy(1, 0) - free_energy(0, 0)) - (free_energy(1, 1) - free_energy(0, 1))
    got = contrast(params, rows, kind=kind, sweeps=400)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize("kind", ["exact", "variational", "paper"])
def test_no_interaction_where_no_hidden_unit_joins_the_parts(params, rows, kind):
    """Hidden units that see purchases see no push, on any layer: the contrast is zero however strong the couplings."""
    side = [np.array([0, 0, 0, 0, 0, 1]), np.array([0, 0, 1, 1]), np.array([0, 1, 1]), np.array([0, 1])]
    apart = [jnp.asarray(a[:, None] == b, jnp.float32) for a, b in itertools.pairwise(side)]
    machine = DBMParams(tuple(w * keep for w, keep in zip(params.weights, apart, strict=True)), params.biases)
    got = contrast(machine, rows, kind=kind, sweeps=400)
    np.testing.assert_allclose(got, 0.0, atol=5e-6 if kind == "exact" else 1e-7)


def test_sets_that_are_no_contrast_are_refused(params, rows):
    with pytest.raises(UserError, match=r"two sides of A set different units: \['purchase_lag2'\]"):
        conditional.interaction(params, rows, ({"purchase_lag1": 0.0}, PURCHASE[1]), PUSH, visible=LAYER)
    with pytest.raises(UserError, match=r"A and B both set \['push_lag1'\]"):
        conditional.interaction(params, rows, PUSH, PUSH, visible=LAYER)


reconstruct = jax.jit(
    lambda params, v, part, visible: conditional.reconstruct(params, v, part, visible=visible, sweeps=50),
    static_argnames=("part", "visible"),
)


def test_reconstruction_reads_nothing_of_the_missing_part(params, rows):
    missing = rows.at[:, :3].set(jnp.nan).at[:, 5].set(jnp.nan)
    full, info = reconstruct(params, missing, ("store", "push"), LAYER)
    np.testing.assert_array_equal(full[:, 3:5], rows[:, 3:5])
    np.testing.assert_allclose(full[:, :3].sum(-1), 1.0, atol=1e-6)
    again, _ = reconstruct(params, rows, ("store", "push"), LAYER)
    np.testing.assert_array_equal(full, again)
    assert info.residual.shape == (len(rows),)


@pytest.mark.parametrize("part", ["store", "price"])
def test_reconstruction_is_near_the_exact_conditional_mean(part):
    """Mean field errs by the order of the couplings squared; at couplings of about 0.2 that is below 0.01."""
    visible, params = oracles.MIXED, oracles.machine((6, 4, 3), scale=0.2)
    v = np.array([[0, 1, 0, 0, 0, -2.0]])
    mask = visible.mask([part])
    states = oracles.enumerate_states(params, visible)
    if part == "price":
        # The Gaussian unit is integrated out of `states` and stands there at its conditional mean.
        alike = (states.x[:, :5] == v[0, :5]).all(1)
        logs = states.log_weights[alike]
        expected = np.exp(logs - oracles.log_sum(logs)) @ states.x[alike][:, 5:6]
    else:
        choices = np.repeat(v, 3, axis=0)
        choices[:, :3] = np.eye(3)
        logs = -oracles.free_energy(params, choices, visible)
        expected = np.exp(logs - oracles.log_sum(logs))
    filled, _ = reconstruct(params, jnp.asarray(v, jnp.float32), (part,), visible)
    prior = np.asarray(oracles.means(params, visible)[0])[mask]
    np.testing.assert_allclose(np.asarray(filled[0])[mask], expected, atol=0.01)
    assert np.abs(prior - expected).max() > 0.04, "the other units must matter for this test to say anything"


def test_clamp_by_label(rows):
    changed = clamp.apply(rows, {"purchase_lag1": 1.0, "push_lag1": 0.0, "store_b": 1.0}, visible=LAYER)
    np.testing.assert_array_equal(changed[:, :4], np.tile([0.0, 1.0, 0.0, 1.0], (len(rows), 1)))
    np.testing.assert_array_equal(changed[:, 4], rows[:, 4])
    np.testing.assert_array_equal(changed[:, 5], 0.0)
    np.testing.assert_array_equal(clamp.apply(rows, {}, visible=LAYER), rows)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"purchase_lag3": 1.0}, r"no visible unit is labelled 'purchase_lag3' among 6; .*'purchase_lag2'"),
        ({"push_lag1": 1.5}, r"is a bit and is set to 1.5"),
        ({"push_lag1": float("nan")}, "not finite"),
        ({"store_a": 0.0}, "set another category to 1"),
        ({"store_a": 1.0, "store_c": 1.0}, "two categories of 'store'"),
    ],
)
def test_clamps_that_make_no_row_are_refused(rows, values, message):
    with pytest.raises(UserError, match=message):
        clamp.apply(rows, values, visible=LAYER)


def test_bias_only_is_the_whole_difference_without_couplings():
    visible, params = oracles.MIXED, oracles.machine((6, 3))
    bare = params._replace(weights=(0 * params.weights[0],))
    old = jnp.array([[1.0, 0, 0, 0, 1, 0.3]])
    new = clamp.apply(old, {"store_c": 1.0, "bought": 1.0, "price": -1.2}, visible=visible)
    got = clamp.bias_only(params, old, new, visible=visible)
    expected = oracles.free_energy(bare, new, visible) - oracles.free_energy(bare, old, visible)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    b = np.asarray(params.biases[0], np.float64)
    np.testing.assert_allclose(got, b[0] - b[2] - b[3] + 1.5 * b[5] + 0.5 * (1.2**2 - 0.3**2), atol=1e-6)
