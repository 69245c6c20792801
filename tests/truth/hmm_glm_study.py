"""Planted switching couplings, and how well each prior finds them: used by tests, and by itself.

The low-data setting: 3 states, 10 units, 5 lags, a signed adjacency shared by the states with 20 %
of its entries drawn anew in each, strengths U(0, 3), sigmoid rates, 500 samples.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from afterimage.connectivity.hmm_glm import HMMGLM, Prior, exponential_basis
from afterimage.signal.forward_backward import match_states

S, N, K, T = 3, 10, 5, 500


@dataclass
class Planted:
    """Truth and counts: states and counts (n_sequences, T[, N])."""

    adjacency: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    transition: np.ndarray
    states: np.ndarray
    counts: np.ndarray

    def oracle(self) -> HMMGLM:
        return HMMGLM(n_states=S, n_lags=K).set_parameters(
            self.weights, self.bias, np.full(S, 1 / S), self.transition
        )


def plant(seed: int, n_sequences: int, stay: float = 0.98) -> Planted:
    rng = np.random.default_rng(seed)
    shared = rng.choice([-1, 0, 1], size=(N, N), p=[0.1, 0.8, 0.1])
    adjacency = np.repeat(shared[None], S, axis=0)
    flips = rng.random(adjacency.shape) < 0.2
    adjacency[flips] = rng.choice([-1, 0, 1], size=int(flips.sum()))
    weights = adjacency * rng.uniform(0, 3, size=adjacency.shape)
    bias = rng.uniform(-0.05, 0.05, N)
    transition = np.full((S, S), (1 - stay) / (S - 1))
    np.fill_diagonal(transition, stay)
    basis = exponential_basis(K)
    states = np.empty((n_sequences, T), int)
    counts = np.zeros((n_sequences, T, N))
    states[:, 0] = rng.integers(S, size=n_sequences)
    for t in range(T):
        if t:
            draw = rng.random((n_sequences, 1))
            states[:, t] = (
                (draw > np.cumsum(transition[states[:, t - 1]], 1)).sum(1).clip(0, S - 1)
            )
        past = sum(
            (basis[k - 1] * counts[:, t - k] for k in range(1, min(K, t) + 1)),
            np.zeros((n_sequences, N)),
        )
        drive = bias + np.einsum("bnm,bm->bn", weights[states[:, t]], past)
        counts[:, t] = rng.poisson(1 / (1 + np.exp(-drive)))
    return Planted(adjacency, weights, bias, transition, states, counts)


def measure(planted: Planted, n_train: int, prior: Prior, **settings: int) -> dict[str, float]:
    """Fit on the first sequences, match states there, and score on all others."""
    train, test = planted.counts[:n_train], planted.counts[n_train:]
    model = HMMGLM(n_states=S, prior=prior, n_lags=K, **settings).fit(train)
    found = model.state_posterior(train).argmax(-1)
    order = match_states(found.ravel(), planted.states[:n_train].ravel(), S)
    place = np.argsort(order)  # state of the model for each true state
    accuracy = order[model.state_posterior(test).argmax(-1)] == planted.states[n_train:]
    return {
        "ll": model.log_likelihood(test),
        "wcorr": float(np.corrcoef(model.weights_[place].ravel(), planted.weights.ravel())[0, 1]),
        "adjacency": float((model.adjacency_[place] == planted.adjacency).mean()),
        "accuracy": float(accuracy.mean()),
        "bound": float(model.bounds_.max()),
    }


def reference(planted: Planted, n_train: int) -> dict[str, float]:
    """Return the oracle's likelihood and state accuracy, and the likelihood of one state."""
    test, oracle = planted.counts[n_train:], planted.oracle()
    plain = HMMGLM(n_states=1, prior="none", n_lags=K, n_restarts=1, n_iterations=10).fit(
        planted.counts[:n_train]
    )
    accuracy = oracle.state_posterior(test).argmax(-1) == planted.states[n_train:]
    return {
        "oracle_ll": oracle.log_likelihood(test),
        "oracle_accuracy": float(accuracy.mean()),
        "one_state_ll": plain.log_likelihood(test),
    }


if __name__ == "__main__":
    import time

    n_train = int(sys.argv[1])
    for seed in map(int, sys.argv[2].split(",")):
        planted = plant(seed, n_train + 10)
        print(seed, {k: round(v, 3) for k, v in reference(planted, n_train).items()}, flush=True)
        for prior in ("none", "gaussian", "one_hot"):
            start = time.process_time()
            extra = {}
            for pair in sys.argv[3:]:
                key, value = pair.split("=")
                extra[key] = float(value) if "." in value else int(value)
            found = measure(planted, n_train, prior, **extra)
            print(" ", prior, {k: round(v, 3) for k, v in found.items()},
                  f"{time.process_time() - start:.0f} s", flush=True)  # fmt: skip
