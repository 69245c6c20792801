"""Every decoder, trained on permuted labels, is at chance on true test labels: 20 seeds each.

Each seed draws its own data, in which there is much to decode, and permutes the labels (which
features, or which condition, belong to which response) within the training trials. Two things must
hold. The mean score of the 20 seeds lies in the 99 % interval of Student's t around chance. And of
the single seeds about 5 % lie outside the 95 % interval of their own test labels' permutations: no
more of them than a binomial distribution allows at 1 %. The second interval takes predictions and
truth as unrelated. A random map of responses to many features is close to that; a random direction
that tells two conditions apart is not, because it may lie along the true one. Conditions are
therefore judged seed by seed in noise, where the interval is exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.decoding.registry import DECODERS, SHARED_DECODERS
from afterimage.decoding.shared import SubjectData

N_SEEDS = 20
N_TRAIN, N_TEST, N_FEATURES, N_UNITS = 160, 40, 200, 60
TIMES_S = np.arange(-25, 100) / 100


def two_way(scores: np.ndarray, right: np.ndarray) -> float:
    """Return how often the right one of two images has the higher score; (n, n) scores."""
    own = scores[np.arange(len(scores)), right][:, None]
    wins = (scores < own).sum(1) + 0.5 * ((scores == own).sum(1) - 1)
    return float(wins.mean() / (len(scores) - 1))


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    ranks = stats.rankdata(scores)
    n_one, n_zero = labels.sum(), (~labels).sum()
    return float((ranks[labels].sum() - n_one * (n_one + 1) / 2) / (n_one * n_zero))


def is_outside(score: Callable[[np.ndarray], float], right: np.ndarray, seed: int) -> bool:
    """Whether a score lies outside the 95 % interval of permutations of the test labels."""
    rng = np.random.default_rng(seed)
    null = [score(rng.permutation(right)) for _ in range(2000)]
    low, high = np.quantile(null, [0.025, 0.975])
    return not low <= score(right) <= high


def responses_to(latent: np.ndarray, maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    clear = latent @ maps
    return (0.8 * clear + 0.6 * rng.normal(size=clear.shape)).astype(np.float32)


def blocks_of(latent: np.ndarray) -> dict[str, np.ndarray]:
    values = latent.astype(np.float32)
    return {"clip": values, "pixels": values[:, :60], "vae": values[:, 60:100]}


class Images:
    """Trials of one person who saw pictures of many independent features."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.maps = np.linalg.qr(self.rng.normal(size=(N_FEATURES, N_UNITS)))[0]
        self.test_latent = self.rng.normal(size=(N_TEST, N_FEATURES))
        self.test = responses_to(self.test_latent, self.maps, self.rng)
        latent = self.rng.normal(size=(N_TRAIN, N_FEATURES))
        self.train = responses_to(latent, self.maps, self.rng)
        self.known = blocks_of(latent)
        self.names = np.array([f"train-{n:03d}" for n in range(N_TRAIN)])

    def permuted(self, permute: bool) -> dict[str, np.ndarray]:
        order = self.rng.permutation(N_TRAIN) if permute else np.arange(N_TRAIN)
        return {block: values[order] for block, values in self.known.items()}


def image_scores(name: str, seed: int, permute: bool) -> tuple[np.ndarray, np.ndarray]:
    """Fit a decoder of one subject; return its scores and what its predictions say, (n, n)."""
    data = Images(seed)
    is_network = getattr(DECODERS.get(name), "needs_layout", False)
    quick = {"n_steps": 40, "evaluate_every": 20, "batch_size": 64} if is_network else {}
    decoder = DECODERS.get(name)(DECODERS.settings(name)(**quick))
    held_out = {f"test-{n:03d}" for n in range(N_TEST)}
    decoder.fit(data.train, data.permuted(permute), data.names, held_out)
    gallery = blocks_of(data.test_latent)
    predicted = decoder.predict(data.test)["clip"]
    return decoder.scores(data.test, gallery), np.corrcoef(predicted, gallery["clip"])[
        :N_TEST, N_TEST:
    ]


def shared_scores(name: str, seed: int, permute: bool) -> tuple[np.ndarray, np.ndarray]:
    """Fit a decoder of two subjects, adapt it to a third; return scores of the second and third."""
    small = {
        "n_steps": 80, "evaluate_every": 40, "batch_size": 80, "adaptation_steps": 160,
        "n_hidden": 64, "n_blocks": 1, "ema_decay": 0.9, "n_common": 64, "n_bottleneck": 16,
        "prior_hidden": 32, "prior_layers": 1, "prior_heads": 2, "prior_steps": 3, "n_token": 16,
    }  # fmt: skip
    settings = SHARED_DECODERS.settings(name)
    known = {key: value for key, value in small.items() if key in settings.model_fields}
    decoder = SHARED_DECODERS.get(name)(settings(**known))
    people = {label: Images(1000 * number + seed) for number, label in enumerate(("1", "2", "3"))}
    training = {
        label: SubjectData(
            one.train, one.permuted(permute), np.array([f"{label}-{n}" for n in one.names]),
            np.array(["early", "late"])[np.arange(N_UNITS) % 2],
        )
        for label, one in people.items()
    }  # fmt: skip
    decoder.fit({label: training[label] for label in ("1", "2")})
    decoder.adapt("3", training["3"])
    second, third = (
        decoder.scores(people[k].test, blocks_of(people[k].test_latent), k) for k in ("2", "3")
    )
    return second, third


def condition_score(name: str, seed: int, permute: bool, effect: float) -> tuple[float, bool]:
    """Fit a classifier of two conditions; return the AUC, and whether it is outside its interval."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(120) % 2)
    trials = rng.normal(size=(120, 6, len(TIMES_S)))
    evoked = np.exp(-(((TIMES_S - 0.3) / 0.05) ** 2))
    for trial, label in zip(trials, labels, strict=True):
        rhythm = np.sin(2 * np.pi * (12 * TIMES_S + rng.random())) * (TIMES_S > 0)
        trial[label] += effect * (evoked + 0.5 * rhythm)
    trials = trials.astype(np.float32)
    train, test = slice(0, 80), slice(80, None)
    known = rng.permutation(labels[train]) if permute else labels[train]
    classifier = CLASSIFIERS.get(name)(CLASSIFIERS.settings(name)(), TIMES_S, tmin_s=0.0)
    found = classifier.fit(trials[train], known).decision_function(trials[test])
    truth = labels[test] == 1
    return auc(found, truth), is_outside(lambda right: auc(found, right), truth, seed)


def check(name: str, scores: list[float], outside: list[bool], known: float) -> None:
    """Print one row of the table, and check both intervals."""
    mean, spread = float(np.mean(scores)), float(np.std(scores, ddof=1))
    half = stats.t.ppf(0.995, len(scores) - 1) * spread / np.sqrt(len(scores))
    n_out = int(np.sum(outside))
    likely = stats.binom.sf(n_out - 1, len(outside), 0.05)
    print(
        f"\n{name:<36} permuted {mean:.3f} (chance 0.5 +- {half:.3f}), single seeds "
        f"{min(scores):.3f} to {max(scores):.3f}, outside 95 %: {n_out} of {len(outside)} "
        f"(p {likely:.2f}); true labels {known:.3f}"
    )
    assert abs(mean - 0.5) <= half
    assert likely > 0.01
    assert known > 0.7, "nothing to decode: being at chance says nothing"


def check_matrices(name: str, make: Callable[[int, bool], tuple[np.ndarray, ...]]) -> None:
    right = np.arange(N_TEST)
    scores: dict[int, list[float]] = {}
    outside: dict[int, list[bool]] = {}
    for seed in range(N_SEEDS):
        for number, matrix in enumerate(make(seed, True)):
            scores.setdefault(number, []).append(two_way(matrix, right))
            score = lambda order, matrix=matrix: two_way(matrix, order)  # noqa: E731
            outside.setdefault(number, []).append(is_outside(score, right, seed))
    known = [two_way(matrix, right) for matrix in make(0, False)]
    failed = []
    for number, what in enumerate(("first", "second")):
        try:
            check(f"{name}, {what}", scores[number], outside[number], known[number])
        except AssertionError as error:
            failed.append(str(error))
    assert not failed, failed


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS.names())
def test_decoders_of_one_subject(name: str) -> None:
    """First by the decoder's own scores, second by correlation of what it predicts."""
    check_matrices(name, lambda seed, permute: image_scores(name, seed, permute))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED_DECODERS.names())
def test_decoders_of_several_subjects(name: str) -> None:
    """First a subject of the fit, second one that the decoder is adapted to."""
    check_matrices(name, lambda seed, permute: shared_scores(name, seed, permute))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS.names())
def test_classifiers_of_conditions(name: str) -> None:
    with contextlib.redirect_stdout(None):
        planted = [condition_score(name, seed, True, 2.0)[0] for seed in range(N_SEEDS)]
        noise = [condition_score(name, seed, True, 0.0) for seed in range(N_SEEDS)]
        known = condition_score(name, 0, False, 2.0)[0]
    check(name, planted, [out for _, out in noise], known)
    check(f"{name}, in noise", [score for score, _ in noise], [out for _, out in noise], known)
