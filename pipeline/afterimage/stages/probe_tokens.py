"""Ask tokens, and models of tokens, for the label of trials, beside linear models of the signal.

People (runs of a single person) are left out; penalties are chosen inside the training part.
Trials of people that the tokenizer was trained on are scored apart from those of others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.decoding.conditions.tangent_space import TangentSpaceSettings
from afterimage.decoding.conditions.window_lda import WindowLDASettings
from afterimage.errors import AfterimageError, InputError
from afterimage.io.atomic import write_json
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.io.weights import load_weights
from afterimage.settings import Settings, StageConfig
from afterimage.stages.checkpoints import checkpoint_folder
from afterimage.stages.condition_trials import Trials, contrast_classes, read_condition_trials
from afterimage.stages.runner import record_skipped
from afterimage.stages.token_probes import (
    Probed,
    TrialGrid,
    frozen_features,
    network_evidence,
    verdict,
)
from afterimage.stages.trial_tokens import encode_trials, seen_by
from afterimage.tokenizers.registry import TOKENIZERS

if TYPE_CHECKING:
    from afterimage.evaluation.conditions import Decoding
    from afterimage.evaluation.group_folds import Folds

    Classifier = Any  # built below from the registry, which a type checker cannot follow
else:
    Classifier = CLASSIFIERS.union()

VERSION = 1
CITES = ("alain2017", "barachant2012", "blankertz2011", "song2024", "ojala2010")
COLUMNS = (
    "tokenizer", "contrast", "features", "role", "seen", "metric", "value", "ci_low", "ci_high",
    "chance", "chance_low", "chance_high", "p", "n", "n_groups", "protocol",
)  # fmt: skip
_KEYS = ("value", "ci_low", "ci_high", "chance", "chance_low", "chance_high", "p")


class TokenContrast(Settings):
    """A label that tokens are asked for."""

    condition_column: str = Field(
        "", description="column of the trials or of participants.tsv; default: the condition"
    )
    classes: dict[str, list[str]] = Field(
        default={}, description="classes by name, each a list of conditions; empty: each condition"
    )


class Config(StageConfig):
    """What tokens and their models are asked for, and what they are compared with."""

    contrasts: dict[str, TokenContrast] = Field(
        default={}, description="labels that are asked for, by name; default: none"
    )
    baselines: dict[str, Classifier] = Field(
        default={"tangentSpace": TangentSpaceSettings(), "windowLDA": WindowLDASettings()},
        description="classifiers of the signal by name (letters and digits), beside band power",
    )
    n_folds: int = Field(
        6, ge=2, description="parts that people, or runs, are dealt into, at most"
    )
    train_networks: bool = Field(
        True, description="also fine-tune models, train them and a convolution from scratch"
    )
    n_steps: int = Field(200, ge=1, description="optimiser steps of each of these, a fold")
    batch_size: int = Field(32, ge=1, description="trials a step")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of AdamW")
    n_permutations: int = Field(100, ge=0, description="refits with labels permuted")
    n_bootstraps: int = Field(1000, ge=100, description="resamples of people for an interval")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: trials of all people, a tokenizer, what it saw, models of its tokens."""

    trials: tuple[Path, ...]
    tokenizer: Path
    exposure: Path
    models: tuple[Path, ...] = ()
    participants: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: one row a representation, side and metric; and what stands behind."""

    table: Path
    details: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Probe every representation of the trials on the same folds."""
    arrays, card = load_weights(inputs.tokenizer)
    tokenizer = TOKENIZERS.get(card["settings"]["kind"]).from_state(arrays, card)
    ledger = read_tsv(inputs.exposure)
    tokens, files = [], []
    errors: list[AfterimageError] = []
    for path in inputs.trials:
        try:
            tokens.append(encode_trials(tokenizer, path))
            files.append(path)
        except InputError as error:
            error.where = error.where or str(path)
            errors.append(error)
    record_skipped("probe_tokens", outputs.table, *errors)
    if not files:
        raise errors[0]
    trials = read_condition_trials(files, inputs.participants, "auto")
    grid = TrialGrid.of(tokens)
    if len(grid.codes) != len(trials.values):
        raise InputError(
            "tokens and trials do not belong together", where=card["name"],
            found=f"{len(grid.codes)} trials in tokens, {len(trials.values)} usable ones",
            expected="as many", fix="see which trials are not finite",
        )  # fmt: skip
    seen = np.array([side for one in tokens for side in seen_by(ledger, one.recordings)])
    models = [load_weights(path) for path in inputs.models]
    frozen = frozen_features(grid, trials, tokenizer, models)
    work = checkpoint_folder("probe_tokens", VERSION, config, inputs, outputs.table)
    rows: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    for number, (name, asked) in enumerate(config.contrasts.items()):
        column, conditions = trials.labels(asked.condition_column)
        try:
            classes = contrast_classes(name, column, conditions, asked.classes)
            part = ContrastProbes(name, classes, trials, seen, config)
        except InputError as error:
            details[name] = {"notes": [str(error).splitlines()[0]]}
            continue
        found = list(part.linear(frozen, threads))
        if config.train_networks:
            found += part.networks(grid, models, device, work / str(number))
        rows += [{"tokenizer": card["name"], **row} for one in found for row in part.rows(one)]
        details[name] = {
            "classes": list(classes), "condition_column": column, "notes": part.notes,
            "verdicts": {
                side: verdict(found, side, config.n_bootstraps, part.random_state)
                for side in part.sides
            },
        }  # fmt: skip
    write_tsv(outputs.table, rows, COLUMNS)
    write_json(
        outputs.details,
        {
            "tokenizer": card["name"], "group_column": trials.group_column,
            "n_channels": trials.values.shape[1], "notes": trials.notes, "contrasts": details,
        },
    )  # fmt: skip
    shutil.rmtree(work.parent, ignore_errors=True)


class ContrastProbes:
    """The trials of one contrast, its folds, and how each representation is scored on them."""

    def __init__(
        self,
        name: str,
        classes: dict[str, np.ndarray],
        trials: Trials,
        seen: NDArray[np.str_],
        config: Config,
    ) -> None:
        from afterimage.evaluation.fold_probes import folds_by_side

        member = np.stack(list(classes.values()))
        self.name, self.config, self.trials = name, config, trials
        self.used = np.flatnonzero(member.any(axis=0))
        self.labels = member[:, self.used].argmax(axis=0)
        self.groups = trials.groups[self.used]
        self.random_state = config.random_state or 0
        self.sides, self.notes = folds_by_side(
            self.labels, self.groups, seen[self.used], config.n_folds
        )
        self.folds: Folds = [fold for folds in self.sides.values() for fold in folds]
        if not self.folds:
            raise InputError(
                "a label cannot be probed", where=f"probe_tokens.contrasts: {name}",
                found="; ".join(self.notes), expected="people or runs that can be left out",
                fix="add people, or choose another label",
            )  # fmt: skip

    def linear(
        self, frozen: dict[tuple[str, str], NDArray[np.floating]], threads: int
    ) -> Iterator[Probed]:
        """Yield the ridge probe of every frozen representation, and the classifiers of signals."""
        from afterimage.evaluation.conditions import cross_validate
        from afterimage.evaluation.fold_probes import ridge_decoding

        config = self.config
        for (features, role), values in frozen.items():
            decoding = ridge_decoding(
                values[self.used], self.labels, self.groups, self.folds,
                n_permutations=config.n_permutations, random_state=self.random_state,
            )  # fmt: skip
            yield self._probed(features, role, decoding, "ridge, penalty chosen by people inside")
        for name, settings in config.baselines.items():
            classifier = CLASSIFIERS.get(settings.kind)(settings, self.trials.times_s, None, None)
            decoding = cross_validate(
                classifier, self.trials.values[self.used], self.labels, self.groups, self.folds,
                n_permutations=config.n_permutations, random_state=self.random_state,
                n_jobs=threads,
            )  # fmt: skip
            yield self._probed(name, "linear baseline", decoding, settings.kind.replace("_", " "))

    def networks(
        self, grid: TrialGrid, models: Sequence[Any], device: str, work: Path
    ) -> Iterator[Probed]:
        """Yield what is trained through: models of tokens, as they were or from scratch, and a CNN."""
        from afterimage.evaluation.fold_probes import trained_decoding

        told = network_evidence(
            grid, self.trials, models, (self.used, self.labels, self.folds), self.config, device,
            work,
        )  # fmt: skip
        words = f"{self.config.n_steps} steps a fold; chance: labels of the test part permuted"
        for (features, role), evidence in told:
            decoding = trained_decoding(
                evidence, self.labels, self.groups, self.folds, random_state=self.random_state
            )
            yield self._probed(features, role, decoding, words)

    def _probed(self, features: str, role: str, decoding: Decoding, words: str) -> Probed:
        """Score evidence, for each side apart."""
        from afterimage.evaluation.conditions import METRICS, score
        from afterimage.evaluation.fold_probes import by_group

        scores = {}
        for side, folds in self.sides.items():
            cells = by_group(folds, self.labels, self.groups)
            own = replace(decoding, folds=cells)
            over_people = self.trials.group_column == "subject" and len(cells) > 1
            scores[side] = {
                metric: score(
                    own, metric, resampled="groups" if over_people else "trials",
                    n_bootstraps=self.config.n_bootstraps, random_state=self.random_state,
                )
                for metric in METRICS
            }  # fmt: skip
        return Probed(features, role, words, scores)

    def rows(self, probed: Probed) -> Iterator[dict[str, Any]]:
        """Yield a row a side and metric."""
        for side, of_metric in probed.scores.items():
            rows = np.concatenate([test for _, test in self.sides[side]])
            thing = "people" if self.trials.group_column == "subject" else "runs"
            for metric, found in of_metric.items():
                yield {
                    "contrast": self.name, "features": probed.features, "role": probed.role,
                    "seen": side, "metric": metric,
                    **{key: getattr(found, key) for key in _KEYS}, "n": len(rows),
                    "n_groups": len(np.unique(self.groups[rows])),
                    "protocol": f"{probed.words}; {thing} left out in "
                    f"{len(self.sides[side])} folds",
                }  # fmt: skip
