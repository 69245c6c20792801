"""One-hot HMM-GLM (Li, Kim, Rodgers, Choi, Wu 2024, ICLR, openreview.net/forum?id=vPOMTkmSiu).

Counts x of N units follow a Poisson distribution whose rate depends on what all units did in the
last K samples, through couplings W that switch with a hidden Markov state z:

    x_{t,n} ~ Poisson(link(b_n + sum_m W_{z_t,nm} sum_k phi_k x_{t-k,m}))

Three priors of the couplings: ``none`` (every state free), ``gaussian`` (states scatter about their
mean with ``prior_sd``), ``one_hot`` (W = (a_exc - a_inh) softplus(strength), a a soft choice among
inhibitory, none and excitatory; a prior shared by the states says which is likely for a pair).

What differs: the prior of a is the bounded categorical sum a log p0, as the density of the
Gumbel-softmax has no upper bound, with p0 in closed form from the choices of all states and
``sparsity`` counts of none, so that an edge must earn its place; strengths are half-normal. The
one-hot model starts from the Gaussian fit and ends with rounds in which the hard choice, which
predicts, is held. All restarts are fitted side by side as one more axis; the best is chosen by its
training likelihood plus log prior; link ``identity`` makes it a switching autoregression with
Gaussian noise, for continuous series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from afterimage.errors import InputError
from afterimage.signal.forward_backward import forward_backward, sequence_log_likelihood

if TYPE_CHECKING:
    from torch import Tensor

Prior = Literal["none", "gaussian", "one_hot"]
Link = Literal["sigmoid", "softplus", "identity"]
#: Probability to stay in a state that a fit starts from.
STAY = 0.98


def exponential_basis(n_lags: int, decay: float = 1.0) -> np.ndarray:
    """Return weights of the last samples, newest first, (n_lags,), that add up to 1."""
    weights = np.exp(-decay * np.arange(n_lags))
    result: np.ndarray = weights / weights.sum()
    return result


def history(counts: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the weighted past of every sample: sum_k basis_k x_{t-k}, k from 1.

    Parameters
    ----------
    counts : array of shape (n_sequences, n_times, n_units)
    basis : array of shape (n_lags,)

    Returns
    -------
    array of shape (n_sequences, n_times, n_units), float64
        What lies before the first sample counts as 0; the sample itself has no part in it.
    """
    past = np.zeros(counts.shape)
    for lag, weight in enumerate(basis, start=1):
        past[:, lag:] += weight * counts[:, :-lag]
    return past


@dataclass
class HMMGLM:
    """Couplings of units that switch between hidden states.

    Parameters
    ----------
    n_states : int
        1 is a plain GLM.
    prior : {"none", "gaussian", "one_hot"}
    link : {"sigmoid", "softplus", "identity"}
        ``identity``: Gaussian noise, for continuous series (z-scored).
    n_lags : int
        Samples of the past.
    self_coupling : bool
        Whether a unit's own past has a weight.
    prior_sd : float
        Spread of the couplings of a state about their mean over states (``gaussian``).
    sparsity, strength_sd : float
        Counts of none that every pair starts with, and scale of the strengths (``one_hot``).
    n_restarts, n_iterations, n_steps : int
        Starts; rounds of expectation and maximisation; gradient steps of a maximisation.
    learning_rate : float
    random_state : int

    Attributes
    ----------
    weights_ : array of shape (n_states, n_units, n_units)
        From the column's unit to the row's unit.
    adjacency_ : array of int, shape (n_states, n_units, n_units)
        -1 inhibitory, 0 none, 1 excitatory.
    bias_ : array of shape (n_units,)
    initial_, transition_ : arrays of shape (n_states,) and (n_states, n_states)
    bounds_ : array of shape (n_restarts,)
        Training log likelihood plus log prior, per sample; the largest was chosen.
    """

    n_states: int = 3
    prior: Prior = "gaussian"
    link: Link = "sigmoid"
    n_lags: int = 5
    self_coupling: bool = True
    prior_sd: float = 1 / 3
    sparsity: float = 4.0
    strength_sd: float = 2.0
    n_restarts: int = 5
    n_iterations: int = 40
    n_steps: int = 20
    learning_rate: float = 0.03
    random_state: int = 0
    weights_: np.ndarray = field(init=False, repr=False)
    adjacency_: np.ndarray = field(init=False, repr=False)
    bias_: np.ndarray = field(init=False, repr=False)
    variance_: np.ndarray = field(init=False, repr=False)
    initial_: np.ndarray = field(init=False, repr=False)
    transition_: np.ndarray = field(init=False, repr=False)
    bounds_: np.ndarray = field(init=False, repr=False)

    def fit(self, sequences: np.ndarray | Sequence[np.ndarray]) -> Self:
        """Fit to sequences of equal length, (n_sequences, n_times, n_units)."""
        counts = checked_sequences(sequences, self.n_lags, self.link)
        fit = _Fit(self, counts)
        first: Prior = "gaussian" if self.prior == "one_hot" else self.prior
        fit.run(first)
        if self.prior == "one_hot":
            fit.run("one_hot")
            fit.run("one_hot", hard=True)
        fit.finish()
        return self

    def log_likelihood(self, sequences: np.ndarray | Sequence[np.ndarray]) -> float:
        """Return log p per sample (all units together) of sequences, states summed out."""
        emission = self._log_emission(sequences)
        found = sequence_log_likelihood(emission, self.initial_[None], self.transition_[None])
        return float(found.sum() / emission[..., 0].size)

    def state_posterior(self, sequences: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Return p(z_t | sequence), (n_sequences, n_times, n_states)."""
        found = forward_backward(
            self._log_emission(sequences), self.initial_[None], self.transition_[None]
        )
        return found.states[0]

    def set_parameters(
        self, weights: np.ndarray, bias: np.ndarray, initial: np.ndarray, transition: np.ndarray
    ) -> Self:
        """Take known parameters instead of fitting: an oracle, or what was stored."""
        self.weights_, self.bias_ = weights, bias
        self.initial_, self.transition_ = initial, transition
        self.adjacency_ = np.sign(weights).astype(np.int8)
        self.variance_ = np.ones(len(bias))
        return self

    def _log_emission(self, sequences: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        import torch

        counts = checked_sequences(sequences, self.n_lags, self.link)
        past = history(counts, exponential_basis(self.n_lags))
        x, h, weights, bias, variance = (
            torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32)
            for values in (counts, past, self.weights_, self.bias_, self.variance_)
        )
        with torch.no_grad():
            found = _log_emission(x, h, weights[None], bias[None], variance[None], self.link)
        return np.asarray(found.double().numpy())


def checked_sequences(
    sequences: np.ndarray | Sequence[np.ndarray], n_lags: int, link: Link
) -> np.ndarray:
    """Return sequences as one array (n_sequences, n_times, n_units), or say what is wrong."""
    shapes = {np.shape(one) for one in sequences}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise InputError(
            "sequences of an HMM-GLM differ in shape", found=", ".join(map(str, sorted(shapes))),
            expected="one or more of the same (n_times, n_units)", fix="cut them to one length",
        )  # fmt: skip
    values = np.stack([np.asarray(one, dtype=np.float64) for one in sequences])
    if not np.isfinite(values).all():
        raise InputError(
            "sequences of an HMM-GLM hold values that are not finite",
            found=f"{(~np.isfinite(values)).sum()} of {values.size}", expected="finite numbers",
            fix="leave out the samples or the units",
        )  # fmt: skip
    if link != "identity" and (values.min() < 0 or np.any(values != np.round(values))):
        raise InputError(
            "an HMM-GLM of counts was given something else", found=f"values like {values.flat[0]}",
            expected="counts: 0, 1, 2, ...", fix="use the link identity for continuous series",
        )  # fmt: skip
    if values.shape[1] <= 4 * n_lags:
        raise InputError(
            "sequences of an HMM-GLM are too short", found=f"{values.shape[1]} samples",
            expected=f"more than 4 times the {n_lags} lags", fix="use fewer lags",
        )  # fmt: skip
    return values


def _log_emission(
    counts: Tensor, past: Tensor, weights: Tensor, bias: Tensor, variance: Tensor, link: Link
) -> Tensor:
    """Return log p(x_t | z_t) of R models: (R, B, T, S).

    Shapes: counts and past (B, T, N), weights (R, S, N, N), bias and variance (R, N).
    """
    import torch
    from torch.nn.functional import logsigmoid, softplus

    R, S, N, _ = weights.shape
    B, T, _ = past.shape
    drive = past.reshape(1, B * T, N) @ weights.reshape(R, S * N, N).transpose(1, 2)  # (R, BT, SN)
    drive = drive.reshape(R, B, T, S, N) + bias[:, None, None, None]
    target = counts[None, :, :, None]  # (1, B, T, 1, N)
    if link == "identity":
        spread = variance[:, None, None, None]
        error = (target - drive).square() / spread
        return -0.5 * (error + torch.log(2 * torch.pi * spread)).sum(-1)
    log_rate = logsigmoid(drive) if link == "sigmoid" else torch.log(softplus(drive) + 1e-8)
    constant = torch.lgamma(counts + 1).sum(-1)[None, :, :, None]
    return (target * log_rate - torch.exp(log_rate)).sum(-1) - constant


class _Fit:
    """The fit of all restarts of one model: parameters (R, ...), and the rounds of EM."""

    def __init__(self, model: HMMGLM, counts: np.ndarray) -> None:
        import torch

        self.model = model
        self.counts = torch.as_tensor(counts, dtype=torch.float32)
        past = history(counts, exponential_basis(model.n_lags))
        self.past = torch.as_tensor(past, dtype=torch.float32)
        R, S, N = model.n_restarts, model.n_states, counts.shape[2]
        self.generator = torch.Generator().manual_seed(model.random_state)
        self.mask = torch.ones(N, N) if model.self_coupling else 1 - torch.eye(N)
        # States must differ at the start, or they stay equal for ever.
        noise = torch.randn(R, S, N, N, generator=self.generator)
        mean = counts.mean((0, 1))
        self.parameters: dict[str, Any] = {
            "weights": (0.3 if S > 1 else 0.01) * noise,
            "bias": torch.as_tensor(self._start_bias(mean), dtype=torch.float32).repeat(R, 1),
        }
        self.variance = torch.as_tensor(
            np.maximum(counts.var((0, 1)), 1e-6), dtype=torch.float32
        ).repeat(R, 1)
        self.initial = np.full((R, S), 1 / S)
        stay = np.where(np.eye(S), STAY if S > 1 else 1.0, (1 - STAY) / max(S - 1, 1))
        self.transition = np.repeat(stay[None], R, axis=0)

    def _start_bias(self, mean: np.ndarray) -> np.ndarray:
        if self.model.link == "identity":
            return mean
        if self.model.link == "softplus":
            return np.asarray(np.log(np.expm1(np.clip(mean, 1e-3, None))))
        mean = np.clip(mean, 1e-3, 0.999)
        return np.asarray(np.log(mean / (1 - mean)))

    def run(self, prior: Prior, *, hard: bool = False) -> None:
        """Alternate between the posterior of the states and gradient steps on the couplings."""
        import torch

        self.prior = prior
        if prior == "one_hot" and not hard:
            self._split_weights()
        n_rounds = max(1, self.model.n_iterations // (4 if hard else 1))
        for value in self.parameters.values():
            value.requires_grad_(True)
        # One optimiser for all rounds, so that steps keep their length from round to round.
        optimizer = torch.optim.Adam(self.parameters.values(), lr=self.model.learning_rate)
        for round_ in range(n_rounds):
            # Full steps at first, then ever smaller ones.
            share = min(1.0, 2.5 * (1 - round_ / n_rounds))
            for group in optimizer.param_groups:
                group["lr"] = self.model.learning_rate * share
            states = self._expect(hard=hard)
            for _ in range(self.model.n_steps):
                optimizer.zero_grad()
                log_emission = self._emission(self._weights(noise=not hard, hard=hard))
                # Restarts do not meet: the sum of their losses has each one's own gradient.
                (-(states * log_emission).sum() - self._log_prior(hard=hard).sum()).backward()
                optimizer.step()
        for value in self.parameters.values():
            value.requires_grad_(False)

    def _emission(self, weights: Tensor) -> Tensor:
        return _log_emission(
            self.counts, self.past, weights, self.parameters["bias"], self.variance,
            self.model.link,
        )  # fmt: skip

    def _expect(self, *, hard: bool) -> Tensor:
        """Posterior of the states, (R, B, T, S); the transitions and the noise in closed form."""
        import torch

        with torch.no_grad():
            weights = self._weights(hard=hard)
            emission = self._emission(weights).double().numpy()
            found = forward_backward(emission, self.initial, self.transition)
            pairs = found.transitions + 1e-2
            self.transition = pairs / pairs.sum(-1, keepdims=True)
            states = torch.as_tensor(found.states, dtype=torch.float32)
            if self.model.link == "identity":
                drive = torch.einsum("btm,rsnm->rbtsn", self.past, weights)
                drive = drive + self.parameters["bias"][:, None, None, None]
                error = (self.counts[None, :, :, None] - drive).square()
                weighted = (states[..., None] * error).sum((1, 2, 3))
                self.variance = (weighted / self.counts[..., 0].numel()).clamp_min(1e-6)
        return states

    def _weights(self, *, noise: bool = False, hard: bool = False) -> Tensor:
        """Couplings of all restarts, (R, S, N, N)."""
        import torch
        from torch.nn.functional import one_hot, softmax, softplus

        if self.prior != "one_hot":
            return self.parameters["weights"] * self.mask
        logits = self.parameters["logits"]
        if hard:
            choice = one_hot(logits.argmax(-1), 3).to(logits.dtype)
        elif noise:
            uniform = torch.rand(logits.shape, generator=self.generator).clamp(1e-6, 1 - 1e-6)
            choice = softmax((logits - torch.log(-torch.log(uniform))) / 0.5, dim=-1)
        else:
            choice = softmax(logits / 0.5, dim=-1)
        signed = choice[..., 2] - choice[..., 0]
        return signed * softplus(self.parameters["strength"]) * self.mask

    def _log_prior(self, *, hard: bool = False) -> Tensor:
        """Log prior of the couplings of every restart, (R,)."""
        import torch
        from torch.nn.functional import one_hot, softmax, softplus

        if self.prior == "none" or self.model.n_states == 1:
            return torch.zeros(self.model.n_restarts)
        if self.prior == "gaussian":
            weights = self.parameters["weights"] * self.mask
            centre = weights.mean(1, keepdim=True)
            return -0.5 * ((weights - centre) / self.model.prior_sd).square().sum((1, 2, 3))
        logits = self.parameters["logits"]
        choice = one_hot(logits.argmax(-1), 3).to(logits.dtype) if hard else softmax(logits, -1)
        none = self.model.sparsity * torch.tensor([0.0, 1.0, 0.0])
        counts = choice.sum(1) + none + 0.1  # (R, N, N, 3)
        shared = torch.log(counts / counts.sum(-1, keepdim=True))
        edges = (choice * shared[:, None]).sum((1, -1)) + (none * shared).sum(-1)  # (R, N, N)
        scaled = softplus(self.parameters["strength"]) / self.model.strength_sd
        strength = -0.5 * (scaled.square() * (1 - choice[..., 1]) * self.mask).sum((1, 2, 3))
        return (edges * self.mask).sum((1, 2)) + strength

    def _split_weights(self) -> None:
        """Turn couplings of the Gaussian fit into choices, strengths and the shared prior."""
        import torch

        weights = self.parameters["weights"].detach()
        size = weights.abs()
        scale = size.mean((1, 2, 3), keepdim=True)
        none = 1.0 - size / scale
        logits = torch.stack([-weights / scale, none, weights / scale], -1)
        self.parameters = {
            "logits": logits,
            "strength": torch.log(torch.expm1(size.clamp_min(0.2))),
            "bias": self.parameters["bias"].detach(),
        }

    def finish(self) -> None:
        """Choose the restart with the largest training bound and store its parameters."""
        import torch

        model = self.model
        with torch.no_grad():
            weights = self._weights(hard=True)
            emission = self._emission(weights).double().numpy()
            likelihood = sequence_log_likelihood(emission, self.initial, self.transition).sum(-1)
            bounds = likelihood + self._log_prior(hard=True).double().numpy()
        model.bounds_ = bounds / (self.counts.shape[0] * self.counts.shape[1])
        best = int(np.argmax(bounds))
        own = (weights[best], self.parameters["bias"][best], self.variance[best])
        model.weights_, model.bias_, model.variance_ = (x.double().numpy() for x in own)
        model.initial_, model.transition_ = self.initial[best], self.transition[best]
        model.adjacency_ = signed_edges(model.weights_, self.prior)


def signed_edges(weights: np.ndarray, prior: Prior) -> np.ndarray:
    """Return -1, 0 or 1 for every coupling: its sign, 0 where it is absent or small.

    One-hot models are exact; for the others what lies below the split of all sizes into two
    classes of least variance (Otsu 1979) counts as absent.
    """
    if prior == "one_hot":
        return np.sign(weights).astype(np.int8)
    sizes = np.sort(np.abs(weights).ravel())
    n = np.arange(1, len(sizes))
    total = np.cumsum(sizes)
    low, high = total[:-1] / n, (total[-1] - total[:-1]) / (len(sizes) - n)
    cut = sizes[int(np.argmax(n * (len(sizes) - n) * (high - low) ** 2))]
    return (np.sign(weights) * (np.abs(weights) > cut)).astype(np.int8)
