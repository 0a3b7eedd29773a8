"""Laws of surgery, counterfactuals and identification, on random finite models, to 1e-10."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ppcore as pp
from ppcore import dist
from ppcore.causal.front_door import NotIdentifiable
from ppcore.causal.twin import twin
from ppcore.errors import EvidenceError, ModelError, ShapeError, UnsupportedError
from tests.finite_diagrams import SEEDS, close, networks, table

laws = settings(settings.get_profile("fixed"), max_examples=40)

SMOKING = np.array([0.2, 0.02, 0.05, 0.1, 0.02, 0.01, 0.1, 0.5]).reshape(2, 2, 2)  # s, t, c


def smoking():
    """The joint of smoking, tar and cancer as it is observed, in any factorisation."""
    st_ = SMOKING.sum(2)

    @pp.model
    def observed():
        s = pp.sample("s", dist.Bernoulli(st_[1].sum()))
        t = pp.sample("t", dist.Bernoulli(pp.math.get_at(st_[:, 1] / st_.sum(1), s)))
        pp.sample("c", dist.Bernoulli(pp.math.get_at(SMOKING[:, :, 1] / st_, (s, t))))

    return observed()


HIDDEN = nx.DiGraph([("h", "s"), ("h", "c"), ("s", "t"), ("t", "c")])


def test_the_smoking_example_has_its_four_numbers() -> None:
    model = smoking()
    close(table(model, "stc"), SMOKING)
    observational = model.disintegrate(given="s", keep="c").tensor()[:, 1]
    np.testing.assert_allclose(observational, [0.3243, 0.8095], rtol=0, atol=5e-5)
    interventional = model.front_door("s", "t", "c", graph=HIDDEN).tensor()[:, 1]
    np.testing.assert_allclose(interventional, [0.4577, 0.7465], rtol=0, atol=5e-5)


def test_the_front_door_is_surgery_on_a_model_with_the_hidden_cause() -> None:
    """With the hidden cause spelt out, cutting its arrow gives what the comb gives without it."""
    rng = np.random.default_rng(5)
    p_s, p_t, p_c = (
        rng.uniform(0.1, 0.9, 2),
        rng.uniform(0.1, 0.9, 2),
        rng.uniform(0.1, 0.9, (2, 2)),
    )

    @pp.model
    def full():
        h = pp.sample("h", dist.Bernoulli(0.4))
        s = pp.sample("s", dist.Bernoulli(pp.math.get_at(p_s, h)))
        t = pp.sample("t", dist.Bernoulli(pp.math.get_at(p_t, s)))
        pp.sample("c", dist.Bernoulli(pp.math.get_at(p_c, (h, t))))

    model = full()
    effect = model.front_door("s", "t", "c")
    for value in (0, 1):
        cut = model.do(s=value).solve().marginal("c").probs
        close(effect.tensor()[value], cut)
        close(effect(s=value).solve().marginal("c").probs, cut)


def test_identification_agrees_with_surgery() -> None:
    pytest.importorskip("y0")
    model = smoking()
    estimand = model.identify("c", do="s", graph=HIDDEN)
    close(estimand.table(model), model.front_door("s", "t", "c", graph=HIDDEN).tensor())
    assert "P(t | s)" in str(estimand)
    back_door = nx.DiGraph([("s", "t"), ("s", "c"), ("t", "c")])
    effect = model.identify("c", do="t", graph=back_door).table(model)
    close(effect[1], model.do(t=1).solve().marginal("c").probs)
    conditional = model.identify("c", do="t", given="s", graph=back_door).table(model)
    close(conditional[1, 0], model.do(t=1).observe(s=0).solve().marginal("c").probs)


def test_an_effect_that_is_not_identifiable_is_refused() -> None:
    confounded = nx.DiGraph([("h", "s"), ("h", "c"), ("s", "t"), ("t", "c"), ("s", "c")])
    with pytest.raises(NotIdentifiable, match=r"front door is open: 's' reaches 'c' past 't'"):
        smoking().front_door("s", "t", "c", graph=confounded)
    shared = nx.DiGraph([("h", "s"), ("h", "t"), ("s", "t"), ("t", "c")])
    with pytest.raises(NotIdentifiable, match="back-door path between 's' and the mediator"):
        smoking().front_door("s", "t", "c", graph=shared)
    shared = nx.DiGraph([("h", "t"), ("h", "c"), ("s", "t"), ("t", "c")])
    with pytest.raises(NotIdentifiable, match="back-door path between the mediator 't' and 'c'"):
        smoking().front_door("s", "t", "c", graph=shared)
    with pytest.raises(ModelError, match=r"cycle \(s → t\)|cycle \(t → s\)"):
        cyclic = nx.DiGraph([("s", "t"), ("t", "s"), ("t", "c")])
        smoking().front_door("s", "t", "c", graph=cyclic)
    pytest.importorskip("y0")
    with pytest.raises(NotIdentifiable, match="not identifiable from the joint of c, s, t"):
        smoking().identify("c", do="s", graph=confounded)


@laws
@given(networks(), st.data())
def test_do_is_idempotent_and_commutes_on_distinct_sites(drawn, data) -> None:
    model, _ = drawn
    sites = list(model.latents)
    a, b = data.draw(st.permutations(sites))[:2]
    once = model.do({a: 1})
    assert once.do({a: 1}).diagram == once.diagram
    assert once.do({a: 0}).do({a: 1}).diagram == once.diagram
    close(table(once.do({a: 1}), model.latents[:1]), table(once, model.latents[:1]))
    there, back = once.do({b: 0}), model.do({b: 0}).do({a: 1})
    for site in sites:
        p, q = there.solve().marginal(site), back.solve().marginal(site)
        close(p.values, q.values)
        close(p.probs, q.probs)


@laws
@given(networks(positive=True), st.data())
def test_do_is_conditioning_at_roots_only(drawn, data) -> None:
    model, parents = drawn
    sites = list(model.latents)
    i = data.draw(st.integers(0, len(sites) - 1))
    rest = [s for s in sites if s != sites[i]]
    done = table(model.do({sites[i]: 1}), rest)
    seen = table(model.observe({sites[i]: 1}), rest)
    joint = table(model, sites)
    if not parents[i]:
        close(done, seen)
    else:  # p(rest | do(x)) = Σ over x of the joint, with x's own factor left out
        factor = model.disintegrate(given=[f"x{j}" for j in parents[i]], keep=sites[i]).tensor()
        shape = [joint.shape[j] if j in (*parents[i], i) else 1 for j in range(joint.ndim)]
        cut = joint / factor.reshape(shape)
        close(done, cut.take(1, i))


@laws
@given(networks(), st.data())
def test_do_leaves_what_does_not_depend_on_the_site(drawn, data) -> None:
    model, _ = drawn
    site = data.draw(st.sampled_from(list(model.latents)))
    done = model.do({site: 0}).solve()
    for other in model.latents:
        if other != site and site not in model.ancestors(other):
            close(done.marginal(other).probs, model.solve().marginal(other).probs)


def test_do_with_a_kernel_replaces_the_mechanism_only() -> None:
    model = smoking()
    random = model.do(s=dist.Bernoulli(0.5))
    close(table(random, "s"), [0.5, 0.5])
    close(
        random.disintegrate("s", ["t", "c"]).tensor(), model.disintegrate("s", ["t", "c"]).tensor()
    )
    policy = model.do(t=lambda s: dist.Bernoulli(np.where(s, 0.1, 0.9)))
    close(policy.disintegrate("s", "t").tensor()[:, 1], [0.9, 0.1])
    rule = model.do(t=lambda s: 1 - s)
    close(rule.solve().marginal("c").mean, policy_by_hand(SMOKING))


def policy_by_hand(omega: np.ndarray) -> float:
    p_s = omega.sum((1, 2))
    p_c = omega[:, :, 1] / omega.sum(2)
    return float(p_s[0] * p_c[0, 1] + p_s[1] * p_c[1, 0])


def test_interventions_that_have_no_meaning_are_refused() -> None:
    model = smoking()
    with pytest.raises(ModelError, match="no site 'tar'"):
        model.do(tar=1)
    with pytest.raises(ModelError, match="'c', which depends on it: that would be a cycle"):
        model.do(t=lambda c: dist.Bernoulli(0.5 * c))
    with pytest.raises(EvidenceError, match="comes after evidence at 'c'"):
        model.observe(c=1).do(s=1)
    with pytest.raises(EvidenceError, match="outside its support"):
        model.do(s=3)
    with pytest.raises(ShapeError, match="same shape and dtype"):
        model.do(s=dist.Bernoulli(np.array([0.5, 0.5])))
    close(table(model.observe(s=1).do(t=1), "c"), table(model.do(t=1).observe(s=1), "c"))


def test_do_reaches_into_a_scan() -> None:
    @pp.model
    def chain(steps):
        def step(z, _):
            z = pp.sample("z", dist.Bernoulli(np.where(z, 0.9, 0.2)))
            pp.sample("y", dist.Bernoulli(np.where(z, 0.8, 0.3)))
            return z, None

        pp.scan(step, np.array(0), None, steps)

    model = chain(4)
    held = model.do(z=np.array([1, 0, 1, 1]))
    close(held.solve().marginal("y").mean, [0.8, 0.3, 0.8, 0.8])
    assert held.do(z=np.array([1, 0, 1, 1])).diagram == held.diagram
    assert held.latents == ("y",)


def functional(seed: int):
    """A finite functional model: exogenous roots, and functions of them."""
    rng = np.random.default_rng(seed)
    f, g, h = rng.integers(0, 3, (3, 2)), rng.integers(0, 2, (3, 2)), rng.integers(0, 3, (3, 2, 3))
    p = [rng.dirichlet(np.ones(k)) for k in (3, 2, 2, 3)]

    @pp.model
    def study():
        u = [pp.sample(f"u{i}", dist.Categorical(q)) for i, q in enumerate(p)]
        x = pp.deterministic("x", pp.math.get_at(f, (u[0], u[1])))
        y = pp.deterministic("y", pp.math.get_at(g, (x, u[2])))
        pp.deterministic("z", pp.math.get_at(h, (x, y, u[3])))

    return study(), (p, f, g, h)


@laws
@given(SEEDS)
def test_a_twin_without_intervention_agrees_almost_surely(seed) -> None:
    model, _ = functional(seed)
    diagram, data = twin(model.diagram, model.data, {}, share=False)
    from ppcore.exact import solve

    copies = sum(b.name is not None and b.name.startswith("cf.") for b in diagram.boxes())
    assert copies == 3, "every computed site has a copy of its own"
    solution = solve(diagram, data, {})
    for site in "xyz":
        both = solution.net.sites[site], solution.net.sites[f"cf.{site}"]
        assert np.array_equal(both[0].table, both[1].table)
        assert [s.tolist() for s in both[0].slots] == [s.tolist() for s in both[1].slots]
    draws = model.twin(do={}).simulate(0, 50)
    assert all(np.array_equal(draws[s], draws[f"cf.{s}"]) for s in "xyz")


@laws
@given(SEEDS)
def test_counterfactuals_agree_with_enumeration_of_the_noise(seed) -> None:
    model, (p, f, g, h) = functional(seed)
    weight: dict[int, float] = {}
    seen = 0.0
    z_seen, x_held = int(h[f[0, 0], g[f[0, 0], 0], 0]), 1
    for u in np.ndindex(3, 2, 2, 3):
        mass = float(np.prod([q[i] for q, i in zip(p, u, strict=True)]))
        x = f[u[0], u[1]]
        if h[x, g[x, u[2]], u[3]] == z_seen:
            seen += mass
            cf = int(h[x_held, g[x_held, u[2]], u[3]])
            weight[cf] = weight.get(cf, 0.0) + mass
    solution = model.twin(observe={"z": z_seen}, do={"x": x_held}).solve()
    close(np.exp(solution.log_evidence), seen)
    found = solution.marginal("cf.z")
    close([weight.get(int(v), 0.0) / seen for v in found.values], found.probs)


def test_a_twin_replays_the_noise_of_location_scale_sites() -> None:
    @pp.model
    def line():
        x = pp.sample("x", dist.Normal(0, 1))
        m = pp.sample("m", dist.LogNormal(0.5 * x, 0.3))
        pp.sample("y", dist.Normal(2 * x - m, 1 + x**2))

    seen = {"x": np.array([0.5]), "m": np.array([1.2]), "y": np.array([-1.0])}
    model = line().twin(observe={k: v[0] for k, v in seen.items()}, do={"x": -1.0})
    made = model.simulate_given(0, seen)
    noise_m = (np.log(1.2) - 0.25) / 0.3
    m = np.exp(-0.5 + 0.3 * noise_m)
    y = -2 - m + 2 * (-1.0 - (1.0 - 1.2)) / 1.25
    close(made["cf.m"], [m])
    close(made["cf.y"], [y])


def test_a_twin_of_a_box_that_is_no_function_is_refused() -> None:
    with pytest.raises(
        UnsupportedError, match="site 't' ~ Bernoulli .* counterfactual is not defined"
    ):
        smoking().twin(observe={"c": 1}, do={"s": 0})
    shared = smoking().twin(do={"c": 0})  # nothing random lies below c
    assert "cf.t" in shared.spaces
    with pytest.raises(ModelError, match="no site 'q'"):
        smoking().twin(do={"q": 0})


@laws
@given(networks(), st.data())
def test_d_separation_implies_independence(drawn, data) -> None:
    model, _ = drawn
    sites = list(model.latents)
    a, b, *rest = data.draw(st.permutations(sites))
    z = rest[: data.draw(st.integers(0, len(rest)))]
    if not model.d_separated(a, b, given=z):
        return
    joint = table(model, [a, b, *z]).reshape(*[len(table(model, [s])) for s in (a, b)], -1)
    mass = joint.sum((0, 1))
    with np.errstate(invalid="ignore"):
        joint = np.where(mass > 0, joint / mass, 0)
    close(joint, np.einsum("az,bz->abz", joint.sum(1), joint.sum(0)) * (mass > 0))


@laws
@given(networks(), st.data())
def test_the_markov_blanket_shields(drawn, data) -> None:
    model, _ = drawn
    site = data.draw(st.sampled_from(list(model.latents)))
    blanket = model.markov_blanket(site)
    others = set(model.latents) - blanket - {site}
    assert not others or model.d_separated(site, others, given=blanket)


def test_functions_of_given_sites_count_as_given() -> None:
    @pp.model
    def chain():
        x = pp.sample("x", dist.Normal(0, 1))
        d = pp.deterministic("d", x + 1)
        pp.sample("a", dist.Normal(d, 1))
        pp.sample("b", dist.Normal(d, 1))

    model = chain()
    assert not model.d_separated("a", "b")
    assert model.d_separated("a", "b", given="d")
    assert model.d_separated("a", "b", given="x")
    assert model.ancestors("a") == {"x", "d"}
    with pytest.raises(ModelError, match="two sides"):
        model.d_separated("a", "a")


def test_a_collider_opens_when_it_is_observed() -> None:
    @pp.model
    def alarm():
        a = pp.sample("a", dist.Bernoulli(0.1))
        b = pp.sample("b", dist.Bernoulli(0.1))
        pp.sample("c", dist.Bernoulli(0.1 + 0.8 * np.maximum(a, b)))

    assert alarm().d_separated("a", "b")
    assert not alarm().d_separated("a", "b", given="c")
    assert not alarm().observe(c=1).d_separated("a", "b")


def test_the_graph_of_a_scan_claims_nothing_false() -> None:
    @pp.model
    def chain(steps):
        rate = pp.sample("rate", dist.Normal(0, 1))
        other = pp.sample("other", dist.Normal(0, 1))

        def step(z, _):
            z = pp.sample("z", dist.Normal(0.9 * z, 1))
            pp.sample("y", dist.Normal(z + rate, 1))
            return z, None

        last, _ = pp.scan(step, 0.0, None, steps)
        pp.sample("end", dist.Normal(last + other, 1))

    model = chain(5)
    assert model.d_separated("rate", "other")
    assert not model.d_separated("rate", "other", given=["y", "end"])
    assert not model.d_separated("z", "end")
    assert not model.d_separated("z", "y", given="rate")
    assert model.ancestors("y") >= {"rate"}
    assert "z" in model.markov_blanket("y")


def test_plated_sites_are_held_as_a_whole() -> None:
    @pp.model
    def groups(n):
        rate = pp.sample("rate", dist.Beta(2, 2))
        with pp.plate("i", n):
            z = pp.sample("z", dist.Bernoulli(rate))
            pp.sample("y", dist.Bernoulli(np.where(z, 0.9, 0.2)))

    model = groups(3)
    held = model.do(z=np.array([1, 0, 1])).marginal(keep="y")
    assert [b.name for b in held.diagram.boxes() if b.op == "sample"] == ["y"]
    close(held.solve().marginal("y").mean, [0.9, 0.2, 0.9])
    close(model.do(z=1).marginal(keep="y").solve().marginal("y").mean, [0.9, 0.9, 0.9])
    with pytest.raises(EvidenceError, match="shape"):
        model.do(z=np.array([1, 0]))
