"""Fit couplings of units that switch between hidden states, and score them on held-out stretches.

``_coupling.nc``: ``weights`` (model, state, unit, unit_), from the column's unit to the row's;
``adjacency`` (-1, 0, 1); ``transition`` (model, state, state_); ``posterior`` (sample, state) of the
best model on all sequences. ``_coupling.tsv``: one row a model: held-out log likelihood per sample
above that of the GLM with one state, with its interval over held-out sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.errors import InputError
from afterimage.io.arrays import write_dataset
from afterimage.io.tables import write_tsv
from afterimage.settings import StageConfig
from afterimage.stages.series_files import common_units, read_recordings

VERSION = 1
CITES = ("li2024", "rabiner1989")
COLUMNS = (
    *("subject", "model", "metric", "value", "ci_low", "ci_high"),
    *("chance", "chance_low", "chance_high", "p", "n", "protocol"),
)


class Config(StageConfig):
    """Hidden Markov models whose states are couplings (HMM-GLM); off unless enabled."""

    enabled: bool = Field(False, description="whether couplings are fitted at all")
    priors: tuple[Literal["none", "gaussian", "one_hot"], ...] = Field(
        ("none", "gaussian", "one_hot"), description="priors of the couplings to compare"
    )
    link: Literal["sigmoid", "softplus", "identity"] = Field(
        "identity", description="sigmoid or softplus: counts; identity: continuous series"
    )
    n_states: int = Field(3, ge=2, description="hidden states")
    n_lags: int = Field(5, ge=1, description="samples of the past that couplings act from")
    self_coupling: bool = Field(True, description="whether a unit's own past has a weight")
    n_samples: int = Field(100, ge=20, description="samples of a sequence series are cut into")
    max_units: int = Field(30, ge=2, description="the most variable units, at most this many")
    n_folds: int = Field(4, ge=2, description="parts of the sequences left out in turn")
    n_restarts: int = Field(5, ge=1, description="starts; the best by training likelihood is kept")
    n_iterations: int = Field(40, ge=1, description="rounds of expectation and maximisation")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the series of one subject, of one set of units."""

    series: tuple[Path, ...]


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    coupling: Path
    scores: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Fit every prior on folds for the scores, and on all sequences for what is stored."""
    sequences, names, subject = _read(inputs, outputs, config)
    seed = config.random_state or 0
    folds = np.arange(len(sequences)) * config.n_folds // len(sequences)
    likelihood = {name: np.empty(len(sequences)) for name in ("one_state", *config.priors)}
    for fold in np.unique(folds):
        train, test = folds != fold, np.flatnonzero(folds == fold)
        for name in likelihood:
            model = _model(config, name, seed).fit(sequences[train])
            for index in test:
                likelihood[name][index] = model.log_likelihood(sequences[[index]])
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(sequences), size=(1000, len(sequences)))
    rows = []
    for name in config.priors:
        gain = likelihood[name] - likelihood["one_state"]
        low, high = np.quantile(gain[draws].mean(1), [0.025, 0.975])
        rows.append(
            {"subject": subject, "model": name, "metric": "held_out_gain", "value": gain.mean(),
             "ci_low": low, "ci_high": high, "chance": 0.0, "n": len(sequences),
             "protocol": f"nats a sample above the GLM of one state, {config.n_folds} parts of the "
             "sequences left out in turn; interval over sequences"}
        )  # fmt: skip
    models = [_model(config, name, seed).fit(sequences) for name in config.priors]
    best = models[int(np.argmax([row["value"] for row in rows]))]
    outputs.coupling.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(outputs.coupling, _dataset(models, best, sequences, names, config, subject))
    write_tsv(outputs.scores, rows, COLUMNS)


def _model(config: Config, name: str, seed: int) -> Any:
    from afterimage.connectivity.hmm_glm import HMMGLM

    single = name == "one_state"
    return HMMGLM(
        n_states=1 if single else config.n_states, prior="none" if single else name,  # type: ignore[arg-type]
        link=config.link, n_lags=config.n_lags, self_coupling=config.self_coupling,
        n_restarts=1 if single else config.n_restarts, n_iterations=config.n_iterations,
        random_state=seed,
    )  # fmt: skip


def _read(inputs: Inputs, outputs: Outputs, config: Config) -> tuple[np.ndarray, np.ndarray, str]:
    """Return sequences (n, n_samples, n_units) without censored samples, names, and the subject."""
    recordings, notes = read_recordings(inputs.series)
    if recordings:
        recordings, _ = common_units(recordings)
        spread = np.mean([r.used().std(0) for r in recordings], axis=0)
        units = np.sort(np.argsort(-spread, kind="stable")[: config.max_units])
        recordings = [recording.select(units) for recording in recordings]
    pieces = []
    for recording in recordings:
        values = recording.values.astype(np.float64)
        if config.link == "identity":
            used = values[recording.kept]
            values = (values - used.mean(0)) / used.std(0)
        starts = range(0, len(values) - config.n_samples + 1, config.n_samples)
        cuts = [slice(start, start + config.n_samples) for start in starts]
        pieces += [values[cut] for cut in cuts if recording.kept[cut].all()]
    if len(pieces) < 2 * config.n_folds:
        raise InputError(
            "too few sequences for an HMM-GLM", where=unit_of(outputs.coupling),
            found=f"{len(pieces)} of {config.n_samples} samples without censoring; "
            f"{'; '.join(notes)[:200]}",
            expected=f"at least {2 * config.n_folds}", fix="make couple_states.n_samples smaller",
        )  # fmt: skip
    return np.stack(pieces), recordings[0].names, recordings[0].subject


def _dataset(
    models: list[Any],
    best: Any,
    sequences: np.ndarray,
    names: np.ndarray,
    config: Config,
    subject: str,
) -> Any:
    import xarray

    posterior = best.state_posterior(sequences).reshape(-1, config.n_states)
    return xarray.Dataset(
        {
            "weights": (
                ("model", "state", "unit", "unit_"),
                np.stack([model.weights_ for model in models]).astype(np.float32),
            ),
            "adjacency": (
                ("model", "state", "unit", "unit_"), np.stack([m.adjacency_ for m in models]),
            ),
            "transition": (
                ("model", "state", "state_"), np.stack([m.transition_ for m in models]),
            ),
            "posterior": (("sample", "state"), posterior.astype(np.float32)),
        },
        coords={
            "model": np.array(config.priors, dtype=object),
            "roi": ("unit", names.astype(object)),
        },
        attrs={
            "subject": subject, "link": config.link, "n_samples": config.n_samples,
            "best": best.prior,
        },
    )  # fmt: skip
