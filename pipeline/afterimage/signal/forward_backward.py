"""Posterior of hidden states by the forward-backward recursion (Rabiner 1989, doi:10.1109/5.18626).

What differs: many sequences and many models at once. The recursion is scaled: each step is
normalised, and the scales add up to the log likelihood, so that no sequence is too long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class StatePosterior(NamedTuple):
    """What the recursion returns, for R models, B sequences of T samples, and S states.

    Attributes
    ----------
    states : array of shape (R, B, T, S)
        p(z_t = s | x_1..T).
    transitions : array of shape (R, S, S)
        Expected number of transitions from a state (row) to a state, over all sequences.
    log_likelihood : array of shape (R, B)
        log p(x_1..T), natural logarithm.
    """

    states: np.ndarray
    transitions: np.ndarray
    log_likelihood: np.ndarray


def forward(
    log_emission: np.ndarray, initial: np.ndarray, transition: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Filter: p(z_t | x_1..t) of every sample.

    Parameters
    ----------
    log_emission : array of shape (R, B, T, S)
        log p(x_t | z_t = s), of R models and B sequences.
    initial : array of shape (R, S)
        p(z_1 = s).
    transition : array of shape (R, S, S)
        p(z_t+1 = column | z_t = row).

    Returns
    -------
    filtered : array of shape (T, R, B, S)
    scale : array of shape (T, R, B, 1)
        p(x_t | x_1..t-1), relative to the likeliest state's emission.
    emission : array of shape (T, R, B, S)
        exp(log_emission), relative to its largest entry of each sample.
    """
    ordered = np.moveaxis(np.asarray(log_emission, dtype=np.float64), 2, 0)  # (T, R, B, S)
    emission = np.exp(ordered - ordered.max(axis=-1, keepdims=True))
    filtered, scale = np.empty_like(emission), np.empty((*emission.shape[:-1], 1))
    predicted = np.broadcast_to(initial[:, None, :], emission.shape[1:])
    for t in range(len(emission)):
        joint = predicted * emission[t]
        scale[t] = joint.sum(axis=-1, keepdims=True)
        filtered[t] = joint / scale[t]
        predicted = filtered[t] @ transition  # (R, B, S) @ (R, S, S)
    return filtered, scale, emission


def sequence_log_likelihood(
    log_emission: np.ndarray, initial: np.ndarray, transition: np.ndarray
) -> np.ndarray:
    """Return log p(x_1..T) of every model and sequence, (R, B); arguments as of `forward`."""
    _, scale, _ = forward(log_emission, initial, transition)
    result: np.ndarray = np.log(scale[..., 0]).sum(axis=0) + log_emission.max(-1).sum(-1)
    return result


def forward_backward(
    log_emission: np.ndarray, initial: np.ndarray, transition: np.ndarray
) -> StatePosterior:
    """Return the posterior of the states given whole sequences; arguments as of `forward`."""
    filtered, scale, emission = forward(log_emission, initial, transition)
    states, after = np.empty_like(filtered), np.ones_like(filtered[0])
    pairs = np.zeros_like(transition)
    states[-1] = filtered[-1]
    backward = np.swapaxes(transition, 1, 2)
    for t in range(len(filtered) - 2, -1, -1):
        weighted = emission[t + 1] * after / scale[t + 1]  # (R, B, S) of the sample after
        pairs += np.swapaxes(filtered[t], 1, 2) @ weighted  # (R, S, B) @ (R, B, S)
        after = weighted @ backward
        states[t] = filtered[t] * after
    likelihood = np.log(scale[..., 0]).sum(axis=0) + log_emission.max(-1).sum(-1)
    return StatePosterior(np.moveaxis(states, 0, 2), pairs * transition, likelihood)


def most_likely_states(states: np.ndarray) -> np.ndarray:
    """Return the likeliest state of every sample by itself, (R, B, T) int."""
    result: np.ndarray = states.argmax(axis=-1)
    return result


def match_states(found: np.ndarray, reference: np.ndarray, n_states: int) -> np.ndarray:
    """Return the label of ``reference`` that each state of ``found`` agrees with most.

    One to one, by the Hungarian algorithm on the table of joint counts. Match on training data
    and apply the result, ``order[found]``, to test data.

    Parameters
    ----------
    found, reference : array of int, shape (n,)
        Labels 0 to ``n_states`` - 1.
    n_states : int

    Returns
    -------
    order : array of int, shape (n_states,)
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((n_states, n_states))
    np.add.at(counts, (found, reference), 1)
    return np.asarray(linear_sum_assignment(-counts)[1])
