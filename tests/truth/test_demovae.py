"""DemoVAE on simulated people with planted effects and factors (gates of its reference)."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.connectivity.demovae import DemoVAE, draw_demographics, repaired
from afterimage.evaluation import generative
from afterimage.stages.generate_connectivity import check_latents, check_samples

N_PEOPLE, N_TRAIN, N_UNITS, N_FACTORS = 800, 600, 30, 8


def simulate(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Make connectivity of a mean, maps of age, sex and three sites, eight factors and noise."""
    n_edges = N_UNITS * (N_UNITS - 1) // 2
    age = rng.uniform(8, 22, N_PEOPLE)
    sex = rng.integers(0, 2, N_PEOPLE)
    site = rng.integers(0, 3, N_PEOPLE)
    factors = rng.standard_normal((N_PEOPLE, N_FACTORS))
    edges = 0.25 * rng.standard_normal(n_edges) + 0.1
    edges = edges + 0.06 * ((age - 15) / 4)[:, None] * rng.standard_normal(n_edges)
    edges = edges + 0.06 * (sex - 0.5)[:, None] * rng.standard_normal(n_edges)
    edges = edges + 0.06 * rng.standard_normal((3, n_edges))[site]
    edges = edges + 0.05 * factors @ rng.standard_normal((N_FACTORS, n_edges))
    edges = edges + 0.05 * rng.standard_normal((N_PEOPLE, n_edges))
    demographics = {
        "age": age, "sex": np.array(["F", "M"])[sex], "site": np.array(["a", "b", "c"])[site],
    }  # fmt: skip
    return edges.astype(np.float32), demographics, factors


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.xfail(
    strict=True,
    reason="measured with seed 0: mean r .942 (gate .95), covariance r .51 (.91), spread 2.06 (1.15), "
    "effect of sex r .82 (.90), copying 2.4 (2); latents hold sex linearly (p .01)",
)
def test_gates_of_the_reference() -> None:
    edges, demographics, factors = simulate(np.random.default_rng(0))
    train = np.arange(N_PEOPLE) < N_TRAIN
    own = {name: values[train] for name, values in demographics.items()}
    held = {name: values[~train] for name, values in demographics.items()}
    model = DemoVAE(latent_size=20, n_epochs=600, learning_rate=1e-3).fit(edges[train], own)
    drawn = draw_demographics(own, 1000)
    sampled = model.sample(drawn)
    rows = check_samples(edges[train], edges[~train], sampled, own, held, drawn)
    latents = model.latents(edges)
    rows += check_latents(edges[~train], latents[~train], held)
    of = {(row["check"], row.get("demographic", "")): row for row in rows}
    for key, row in of.items():
        print(key, {k: row.get(k) for k in ("value", "ceiling", "chance_low", "chance_high", "p")})
    assert of["mean_r", ""]["value"] >= 0.95
    assert of["covariance_r", ""]["value"] >= of["covariance_r", ""]["ceiling"] - 0.05
    assert 0.85 < of["spread_ratio", ""]["value"] < 1.15
    assert 0.5 < of["copying", ""]["value"] < 2
    for name in demographics:
        assert of["effect_r", name]["value"] >= 0.9
        assert 0.8 <= of["effect_slope", name]["value"] <= 1.2
        row = of["decoding_connectivity", name]
        assert row["value"] > row["chance_high"]
        for check in ("decoding_latents", "decoding_latents_nonlinear"):
            assert of[check, name]["value"] <= of[check, name]["chance_high"], (check, name)
    design = np.column_stack([np.ones(N_PEOPLE), latents])
    weights = np.linalg.lstsq(design[train], factors[train], rcond=None)[0]
    error = np.square(factors[~train] - design[~train] @ weights).sum()
    r2 = 1 - error / np.square(factors[~train] - factors[~train].mean(axis=0)).sum()
    print("planted latents R2", r2)
    assert r2 >= 0.9
    written = {**held, "site": np.full(N_PEOPLE - N_TRAIN, "a")}
    harmonised, _ = repaired(model.rewrite(edges[~train], written))
    scored = generative.decode(harmonised, held["site"])
    print("harmonised site", scored)
    assert scored.value <= scored.chance_high
