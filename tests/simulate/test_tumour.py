"""The tumour simulator against a twin in NumPy float64 that writes test rows patient by patient."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.simulate import tumour
from wmjax.simulate.tumour import TumourConfig

CFG = TumourConfig(days=14, window=4, horizon=3)
COUNT, GAMMA = 24, 3.0


@pytest.fixture(scope="module")
def drawn():
    return jax.jit(lambda key: (tumour.patients(key, COUNT), tumour.luck(key, COUNT, cfg=CFG)))(jax.random.key(2))


@pytest.fixture(scope="module")
def plan():
    return tumour.random_plans(jax.random.key(3), COUNT, cfg=CFG)


@pytest.fixture(scope="module", params=[True, False], ids=["quirks", "plain"])
def cfg(request):
    return dataclasses.replace(CFG, quirks=request.param)


@pytest.fixture(scope="module")
def found(drawn, plan, cfg):
    def run(who, lucky, plan):
        one = tumour.one_step(who, lucky, GAMMA, cfg=cfg)
        return one, tumour.multi_step(who, lucky, GAMMA, plan, cfg=cfg)

    return jax.jit(run)(*drawn, plan)


class Twin:
    """One patient's arithmetic in float64."""

    def __init__(self, drawn, index):
        who, self.luck = (type(x)(*(np.asarray(a, np.float64)[index] for a in x)) for x in drawn)
        self.alpha, self.rho, self.beta_c, self.volume = who.alpha, who.rho, who.beta_c, who.volume

    def after(self, volume, dose, code, day):
        radio = 2.0 if code >= 2 else 0.0
        k = np.pi / 6 * 30**3
        growth = self.rho * np.log(k / volume) if volume > 0 else 0.0
        hurt = self.beta_c * dose + self.alpha * radio + self.alpha / 10 * radio**2
        return volume * (1 + growth - hurt + self.luck.noise[day])

    def treat(self, volumes, day):
        mean = np.mean((np.asarray(volumes) * 6 / np.pi) ** (1 / 3))
        at = 1 / (1 + np.exp(-GAMMA / 13 * (mean - 6.5)))
        return int(self.luck.chemo[day] < at) + 2 * int(self.luck.radio[day] < at)


def treat_train(twin, cfg):
    volume, code, dose = [twin.volume], [0], 0.0
    for t in range(1, cfg.days):
        after = twin.after(volume[-1], dose, code[-1], t)
        code.append(twin.treat(volume[max(t - cfg.window, 0) : t], t))
        dose = dose / 2 + 5 * (code[-1] % 2)
        volume.append(min(max(after, 0.0), tumour.DEATH))
        if after > tumour.DEATH or twin.luck.recovery[t] < np.exp(-max(after, 0.0) * 5.8e8):
            break
    return volume, code


def treat_test(drawn, cfg, plan=None):
    """Write test rows one by one; return, by patient and origin, treatments, options or plan volumes."""
    rows, out = [], {}
    long = cfg.days + cfg.horizon
    with np.errstate(invalid="ignore"):
        for i in range(COUNT):
            twin = Twin(drawn, i)
            volume, codes, dose = [twin.volume], [], 0.0
            for t in range(cfg.days - 1):
                row = rows[i] if i < len(rows) else np.zeros(long)
                if cfg.quirks:
                    code = twin.treat(row[max(t - cfg.window, 0) : t + 1], t)
                else:
                    code = twin.treat(volume[max(t - cfg.window, 0) : t], t) if t else 0
                doses = [dose / 2 + 5 * (c % 2) for c in range(4)]
                options = np.array([twin.after(volume[-1], doses[c], c, t + 1) for c in range(4)])
                options[code] = min(max(options[code], 0), tumour.DEATH)
                past = [*volume]
                volume.append(options[code])
                codes.append(code)
                dose = doses[code]
                if plan is None:
                    out[i, t] = options
                    for c in [code, *(c for c in (0, 2, 1, 3) if c != code)]:
                        rows.append(np.array([*past, options[c], *np.zeros(long - t - 2)]))
                else:
                    out[i, t] = []
                    for own in np.asarray(plan[i, t]):
                        now, d, values, valid = volume[-1], dose, [], True
                        for j, c in enumerate(own):
                            valid &= now >= 0
                            d = d / 2 + 5 * (c % 2)
                            now = twin.after(now, d, c, t + 2 + j)
                            values.append(now)
                        out[i, t].append((valid, values))
                        if valid:
                            rows.append(np.array([*volume, *values, *np.zeros(long)])[:long])
                if volume[-1] >= tumour.DEATH or twin.luck.recovery[t] <= np.exp(-volume[-1] * 5.8e8):
                    break
            out[i] = volume, codes
    return out


def test_the_facts():
    assert pytest.approx(1150.35, abs=5e-3) == tumour.DEATH
    assert pytest.approx(np.pi / 6 * 27000) == tumour.CAPACITY
    assert float(tumour.diameter_of(jnp.asarray(tumour.DEATH))) == pytest.approx(13, rel=1e-6)
    assert float(tumour.chance(4.0, jnp.asarray(6.5))) == 0.5
    np.testing.assert_array_equal(tumour.sliding(CFG), [*np.eye(3), *2 * np.eye(3)])


def test_patients_are_drawn_as_stated():
    """Shares, bounds and means of 20,000 patients, within 5 standard errors of what the distributions say."""
    n = 10_000
    who = jax.jit(lambda key: tumour.patients(key, n))(jax.random.key(0))
    who = type(who)(*(np.asarray(x, np.float64) for x in who))
    assert abs(np.mean(who.kind == 1) - 1 / 3) < 5 * np.sqrt(2 / 9 / n)
    diameter = (who.volume * 6 / np.pi) ** (1 / 3)
    assert 0.3 - 1e-4 < diameter.min() < diameter.max() < 13 + 1e-3
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 3 * 10**5))
    alpha = tumour.ALPHA[0] + tumour.ALPHA[1] * first
    rho = tumour.RHO[0] + tumour.RHO[1] * (0.87 * first + np.sqrt(1 - 0.87**2) * second)
    keep = (alpha > 0) & (rho > 0)
    own = who.alpha - np.where(who.kind == 1, 0.1 * tumour.ALPHA[0], 0)
    for x, want in ((own, alpha[keep]), (who.rho, rho[keep])):
        assert x.min() > 0
        assert abs(x.mean() - want.mean()) < 5 * want.std() * np.sqrt(1 / n + 1 / keep.sum())
    assert np.corrcoef(own, who.rho)[0, 1] == pytest.approx(np.corrcoef(alpha[keep], rho[keep])[0, 1], abs=0.02)
    for kind, want in ((1, 0.028), (3, 0.0308)):
        own = who.beta_c[who.kind == kind]
        assert abs(own.mean() - want) < 5 * 7e-4 / np.sqrt(own.size)
    shares = np.array(tumour.SEEN) / sum(tumour.SEEN)
    stage = rng.choice(5, 3 * 10**5, p=shares)
    mean, sd, low, high = np.array(tumour.STAGES)[stage].T
    cdf = lambda x: np.array(jax.scipy.stats.norm.cdf(jnp.asarray((np.log(x) - mean) / sd)), np.float64)  # noqa: E731
    z = np.array(jax.scipy.special.ndtri(jnp.asarray(cdf(low) + (cdf(high) - cdf(low)) * rng.random(3 * 10**5))))
    want = mean + sd * z
    assert abs(np.log(diameter).mean() - want.mean()) < 5 * want.std() * np.sqrt(1 / n + 4e-6)


def test_train_patients_are_their_twins(drawn):
    found = jax.jit(lambda who, lucky: tumour.factual(who, lucky, GAMMA, cfg=CFG))(*drawn)
    ended = 0
    for i in range(COUNT):
        volume, code = treat_train(Twin(drawn, i), CFG)
        length = len(volume) - 1
        ended += length < CFG.days - 1
        assert int(found.length[i]) == length
        np.testing.assert_allclose(found.volume[i, : length + 1], volume, rtol=2e-5)
        assert (np.asarray(found.volume[i, length + 1 :]) == 0).all()
        np.testing.assert_array_equal(found.treatment[i, :length], code[:length])
    assert 0 < ended < COUNT


def test_test_patients_and_their_options_are_their_twins(drawn, found, cfg):
    want, one = treat_test(drawn, cfg), found[0]
    for i in range(COUNT):
        volume, codes = want[i]
        assert int(one.length[i]) == len(codes)
        np.testing.assert_array_equal(one.treatment[i, : len(codes)], codes)
        np.testing.assert_allclose(one.volume[i, : len(volume)], volume, rtol=2e-5)
        for t in range(len(codes)):
            np.testing.assert_allclose(one.options[i, t], want[i, t], rtol=1e-4, atol=1e-4)


def test_plans_are_their_twins(drawn, found, plan, cfg):
    want, many = treat_test(drawn, cfg, plan), found[1]
    for i in range(COUNT):
        _, codes = want[i]
        np.testing.assert_array_equal(many.history.treatment[i, : len(codes)], codes)
        assert not np.asarray(many.valid[i, len(codes) :]).any()
        for t in range(len(codes)):
            valid, volume = zip(*want[i, t], strict=True)
            np.testing.assert_array_equal(many.valid[i, t], valid)
            kept = np.asarray(valid)
            np.testing.assert_allclose(
                np.asarray(many.volume[i, t])[kept], np.array(volume)[kept], rtol=3e-4, atol=1e-4
            )
