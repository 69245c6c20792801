"""What `probe_tokens` computes of trials: frozen features, and evidence of networks trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from afterimage.io.tokens import RecordedTokens
from afterimage.stages.condition_trials import Trials
from afterimage.stages.trial_tokens import TrialTokens, embeddings
from afterimage.tokenizers.tokenizer import SignalTokenizer

if TYPE_CHECKING:
    from afterimage.evaluation.conditions import Score
    from afterimage.evaluation.group_folds import Folds

LINEAR, TOKENS, UNTRAINED = "linear baseline", "tokens", "untrained"
#: Signals beyond this many typical deviations are clipped before a convolution.
CLIP = 10.0


@dataclass(frozen=True, eq=False)
class Probed:
    """One representation on one contrast.

    Attributes
    ----------
    features, role, words : str
        What was given, what it is (a linear baseline, tokens, ...), how it was read.
    scores : dict of dict of Score
        By side and metric.
    """

    features: str
    role: str
    words: str
    scores: dict[str, dict[str, Score]]


@dataclass(frozen=True, eq=False)
class TrialGrid:
    """The tokens of the trials of all people.

    Attributes
    ----------
    codes : list of ndarray of int, (n_streams, n_steps, n_stages)
        One a trial; people may have other streams.
    streams : list of ndarray of str, (n_streams,)
    """

    codes: list[NDArray[np.signedinteger]]
    streams: list[NDArray[np.str_]]

    @classmethod
    def of(cls, people: Sequence[TrialTokens]) -> TrialGrid:
        """Put the trials of people behind each other."""
        codes = [trial for one in people for trial in one.codes]
        return cls(codes, [one.streams for one in people for _ in one.codes])

    def shared(self) -> list[NDArray[np.int64]]:
        """Return the rows of the streams that all trials have, in one order; none: empty."""
        common = set.intersection(*(set(names.tolist()) for names in self.streams))
        order = [name for name in self.streams[0].tolist() if name in common]
        return [
            np.array([names.tolist().index(name) for name in order], np.int64)
            for names in self.streams
        ]


def frozen_features(
    grid: TrialGrid, trials: Trials, tokenizer: SignalTokenizer, models: Sequence[Any]
) -> dict[tuple[str, str], NDArray[np.floating]]:
    """Return what a linear probe is given, (n_trials, n_features), by name and role.

    Streams are kept apart where all trials have some in common, else their mean is taken.
    """
    from afterimage.evaluation.token_card import band_power
    from afterimage.evaluation.token_features import histograms
    from afterimage.pretraining.registry import TOKEN_MODELS

    rows = grid.shared()
    apart = len(rows[0]) > 0

    def laid_out(means: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
        if not apart:
            return np.stack([one.mean(0) for one in means])
        return np.stack([one[at].ravel() for one, at in zip(means, rows, strict=True)])

    books = tokenizer.codebooks()
    codes = [one[at] if apart else one for one, at in zip(grid.codes, rows, strict=True)]
    vectors = [embeddings(one, books) for one in grid.codes]
    centred = trials.values - trials.values.mean(2, keepdims=True)
    found: dict[tuple[str, str], NDArray[np.floating]] = {
        ("band power", LINEAR): band_power(centred, trials.sampling_rate_hz).reshape(
            len(centred), -1
        ),
        ("histogram of tokens", TOKENS): histograms(codes, books.shape[1], by_stream=apart),
        ("vectors of tokens", TOKENS): laid_out([one.mean(1) for one in vectors]),
        ("course of tokens", TOKENS): laid_out([one.reshape(len(one), -1) for one in vectors]),
    }
    for arrays, card in models:
        model = TOKEN_MODELS.get(card["settings"]["kind"]).from_state(arrays, card)
        untrained = type(model)(model.settings).initialise(model.streams_, arrays["codebooks"])
        for one, role, words in (
            (model, "model", "frozen"), (untrained, UNTRAINED, "untrained")
        ):  # fmt: skip
            latents = [
                one.latents(RecordedTokens(code, names, np.ones(code.shape[1], bool), {})).mean(1)
                for code, names in zip(grid.codes, grid.streams, strict=True)
            ]
            found[f"{card['name']}: {words}", role] = laid_out(latents)
    return found


def network_evidence(
    grid: TrialGrid,
    trials: Trials,
    models: Sequence[Any],
    known: tuple[NDArray[np.integer], NDArray[np.integer], Folds],
    config: Any,
    device: str,
    work: Path,
) -> Iterator[tuple[tuple[str, str], NDArray[np.float64]]]:
    """Yield the evidence of networks that are trained through, on equal terms.

    Parameters
    ----------
    grid, trials, models
        As for `frozen_features`.
    known : rows that are used, their labels, folds of them
    config : Config
        Of `probe_tokens`.
    device : str
    work : Path
        Where checkpoints are kept, of every network and fold.

    Yields
    ------
    (features, role), evidence (n_used, n_classes)
    """
    from afterimage.networks.trial_readout import ConvolutionTrials, GridTrials
    from afterimage.pretraining.registry import TOKEN_MODELS
    from afterimage.training.loop import LoopSettings
    from afterimage.training.readout import fit_readout

    used, labels, folds = known
    one_hot = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    settings = LoopSettings(
        n_steps=config.n_steps, batch_size=config.batch_size, learning_rate=config.learning_rate,
        weight_decay=0.05, warmup_steps=config.n_steps // 10, ema_decay=0.98,
    )  # fmt: skip

    options: dict[str, Any] = {
        "classes": True, "settings": settings, "random_state": config.random_state or 0,
        "device": device,
    }  # fmt: skip

    def evidence_of(
        name: str, network: Any, values: np.ndarray, there: np.ndarray
    ) -> NDArray[np.float64]:
        found = np.full(one_hot.shape, np.nan)
        for number, (train, test) in enumerate(folds):
            given = (network, values[train], there[train], one_hot[train])
            own = options | {"checkpoint_folder": work / f"{name}-{number}"}
            predict = seeded(partial(fit_readout, *given, **own), options["random_state"])
            found[test] = predict(values[test], there[test])
        return found

    signals = trials.values[used]
    signals = np.clip(signals - signals.mean(2, keepdims=True), -CLIP, CLIP)
    network = seeded(
        lambda: ConvolutionTrials(signals.shape[1], signals.shape[2], trials.sampling_rate_hz),
        config.random_state or 0,
    )
    heard = np.ones((len(signals), 1, 1), bool)
    told = evidence_of("convolution", network, signals, heard)
    yield ("small convolution", "network baseline"), told
    for arrays, card in models:
        model = TOKEN_MODELS.get(card["settings"]["kind"]).from_state(arrays, card)
        untrained = type(model)(model.settings).initialise(model.streams_, arrays["codebooks"])
        values, there = laid_as_grid(grid, used, model.streams_)
        for one, role, words in (
            (model, "model", "fine-tuned"), (untrained, UNTRAINED, "from scratch")
        ):  # fmt: skip
            name = f"{card['name']}-{role}"
            told = evidence_of(name, GridTrials(one.network_), values, there)
            yield (f"{card['name']}: {words}", role), told


def seeded(make: Callable[[], Any], random_state: int) -> Any:
    """Return what a function makes with torch's global source at a seed, which stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        return make()


def laid_as_grid(
    grid: TrialGrid, used: NDArray[np.integer], names: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return codes with the numbers of their streams, as `GridTrials` takes them, and which are."""
    number = {name: place for place, name in enumerate(names, 1)}
    most = max(len(grid.streams[i]) for i in used)
    _, n_steps, n_stages = grid.codes[used[0]].shape
    values = np.zeros((len(used), most, n_steps, n_stages + 1), np.int64)
    there = np.zeros((len(used), most, n_steps), bool)
    for row, i in enumerate(used.tolist()):
        n = len(grid.streams[i])
        values[row, :n, :, :-1] = grid.codes[i]
        values[row, :n, :, -1] = [[number.get(name, 0)] for name in grid.streams[i].tolist()]
        there[row, :n] = True
    return values, there


def verdict(
    found: Sequence[Probed], side: str, n_bootstraps: int, random_state: int
) -> dict[str, Any]:
    """Compare the best of tokens and their models with the best linear model of the signal."""
    from afterimage.evaluation.fold_probes import paired_difference

    def best(roles: Sequence[str]) -> Probed:
        some = [one for one in found if one.role in roles]
        return max(some, key=lambda one: one.scores[side]["auc"].value)

    linear, own = best([LINEAR]), best([TOKENS, "model"])
    of_tokens, of_signal = (one.scores[side]["auc"] for one in (own, linear))
    difference = paired_difference(of_tokens, of_signal, n_bootstraps, random_state)
    return {
        "linear": linear.features, "linear_auc": of_signal.value, "tokens": own.features,
        "tokens_auc": of_tokens.value,
        "difference": [None if np.isnan(value) else value for value in difference],
    }  # fmt: skip
