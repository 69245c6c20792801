"""Series of regions with known structure, on which models of series are judged.

`ordered_patterns` are scans that differ in the order of their states alone; `module_series` have
modules; `switching_communities` visit a few graphs again and again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ordered_patterns(
    n_scans: int,
    *,
    n_regions: int = 16,
    n_patterns: int = 4,
    n_segments: int = 32,
    segment_volumes: int = 5,
    longest_dwell: int = 2,
    amplitude: float = 1.0,
    pattern_state: int = 0,
    random_state: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Draw scans that visit patterns in a circle, forward or backward in time.

    A pattern stays for 1 to ``longest_dwell`` whole segments. A backward scan is a forward one
    turned round before noise is added, so that occupancy, static connectivity and the distribution
    of windows are those of forward scans; no segment alone, nor any set of them, tells the class.

    Parameters
    ----------
    n_scans, n_regions, n_patterns, n_segments, segment_volumes, longest_dwell : int
    amplitude : float
        Standard deviation of a pattern over regions; that of the noise is 1.
    pattern_state, random_state : int
        Seeds of the patterns, and of the scans.

    Returns
    -------
    series : ndarray of float32, (n_scans, n_segments * segment_volumes, n_regions)
    backward : ndarray of int64, (n_scans,)
        1 where the scan runs backward.
    states : ndarray of int64, (n_scans, n_segments)
        Pattern of each segment.
    patterns : ndarray of float64, (n_patterns, n_regions)
    """
    patterns = np.random.default_rng(pattern_state).standard_normal((n_patterns, n_regions))
    patterns -= patterns.mean(0)  # so that the mean of a scan tells nothing
    patterns *= amplitude / patterns.std(1, keepdims=True)
    generator = np.random.default_rng(random_state)
    backward = generator.permutation(np.arange(n_scans) % 2)
    states = np.empty((n_scans, n_segments), np.int64)
    for scan in range(n_scans):
        before = 8 * longest_dwell  # a start from which the ends of a scan are alike
        dwell = generator.integers(1, longest_dwell + 1, n_segments + before)
        path = np.repeat(np.arange(len(dwell)) + generator.integers(n_patterns), dwell)
        begin = generator.integers(before)
        states[scan] = path[begin : begin + n_segments] % n_patterns
    states[backward == 1] = states[backward == 1, ::-1]
    series = patterns[states.repeat(segment_volumes, axis=1)]
    series = series + generator.standard_normal(series.shape)
    return series.astype(np.float32), backward, states, patterns


def expected_patterns(
    series: NDArray[np.floating],
    hidden: NDArray[np.bool_],
    patterns: NDArray[np.float64],
    *,
    longest_dwell: int = 2,
) -> NDArray[np.float64]:
    """Say of hidden segments of a scan of `ordered_patterns` what can be said at best.

    The posterior mean by forward and backward passes (Rabiner 1989, doi:10.1109/5.18626) over
    states of (direction, pattern, segments still to stay).

    Parameters
    ----------
    series : ndarray, (n_segments, segment_volumes, n_regions)
    hidden : ndarray of bool, (n_segments,)
    patterns : ndarray, (n_patterns, n_regions)
    longest_dwell : int

    Returns
    -------
    ndarray of float64, (n_segments, n_regions)
    """
    n_patterns, n_segments = len(patterns), len(series)
    fit = series.mean(1) @ patterns.T - 0.5 * (patterns**2).sum(1)
    fit = np.where(hidden[:, None], 0.0, series.shape[1] * fit)
    likelihood = np.exp(fit - fit.max(1, keepdims=True))  # (n_segments, n_patterns)
    moves = np.zeros((2, n_patterns, longest_dwell, 2, n_patterns, longest_dwell))
    for way, step in enumerate((1, -1)):
        for pattern in range(n_patterns):
            moves[way, pattern, 0, way, (pattern + step) % n_patterns] = 1 / longest_dwell
            for left in range(1, longest_dwell):
                moves[way, pattern, left, way, pattern, left - 1] = 1.0
    n_states = 2 * n_patterns * longest_dwell
    move = moves.reshape(n_states, n_states)
    emission = np.tile(likelihood[:, None, :, None], (1, 2, 1, longest_dwell)).reshape(
        n_segments, n_states
    )
    stay = np.arange(longest_dwell, 0, -1.0)  # stationary: as many segments have k still to stay
    start = np.tile(stay / stay.sum(), 2 * n_patterns) / (2 * n_patterns)
    forward, backward = np.empty((2, n_segments, n_states))
    belief = start
    for segment in range(n_segments):
        forward[segment] = belief * emission[segment]
        forward[segment] /= forward[segment].sum()
        belief = forward[segment] @ move
    belief = np.ones(n_states)
    for segment in range(n_segments - 1, -1, -1):
        backward[segment] = belief
        belief = move @ (belief * emission[segment])
        belief /= belief.sum()
    posterior = (forward * backward).reshape(n_segments, 2, n_patterns, longest_dwell)
    posterior = posterior.sum((1, 3))
    expected: NDArray[np.float64] = posterior / posterior.sum(1, keepdims=True) @ patterns
    return expected


def module_series(
    n_recordings: int,
    *,
    n_times: int = 200,
    n_regions: int = 30,
    n_modules: int = 5,
    loading: float = 0.8,
    random_state: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw Gaussian series, white in time, whose regions share the factor of their module.

    Two regions of a module correlate ``loading ** 2``, others not at all.

    Returns
    -------
    series : ndarray of float32, (n_recordings, n_times, n_regions)
    modules : ndarray of int64, (n_regions,)
        In an order that tells nothing.
    """
    generator = np.random.default_rng(random_state)
    modules = generator.permutation(np.arange(n_regions) % n_modules)
    factors = generator.standard_normal((n_recordings, n_times, n_modules))
    noise = generator.standard_normal((n_recordings, n_times, n_regions))
    series = loading * factors[..., modules] + np.sqrt(1 - loading**2) * noise
    return series.astype(np.float32), modules


def switching_communities(
    n_recordings: int,
    *,
    n_times: int = 600,
    n_regions: int = 24,
    n_states: int = 3,
    n_communities: int = 3,
    dwell_volumes: int = 100,
    loading: float = 0.8,
    random_state: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw series whose communities change: each state of a Markov chain has communities of its own.

    Parameters
    ----------
    n_recordings, n_times, n_regions, n_states, n_communities : int
    dwell_volumes : int
        Shortest stay in a state; the stay is that plus an exponential of half its length.
    loading : float
        Two regions of a community correlate ``loading ** 2``.
    random_state : int

    Returns
    -------
    series : ndarray of float32, (n_recordings, n_times, n_regions)
    states : ndarray of int64, (n_recordings, n_times)
    """
    generator = np.random.default_rng(random_state)
    communities = np.stack(
        [generator.permutation(np.arange(n_regions) % n_communities) for _ in range(n_states)]
    )
    states = np.empty((n_recordings, n_times), np.int64)
    for row in states:
        at, state = 0, int(generator.integers(n_states))
        while at < n_times:
            stay = dwell_volumes + int(generator.exponential(dwell_volumes / 2))
            row[at : at + stay] = state
            at, state = at + stay, (state + int(generator.integers(1, n_states))) % n_states
    factors = generator.standard_normal((n_recordings, n_times, n_communities))
    noise = generator.standard_normal((n_recordings, n_times, n_regions))
    shared = np.take_along_axis(factors, communities[states], axis=2)
    series = loading * shared + np.sqrt(1 - loading**2) * noise
    return series.astype(np.float32), states
