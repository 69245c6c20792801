"""Tell the conditions of trials apart, leaving out runs of one subject or people of several.

One table of trials: one subject, runs (or sessions) left out in turn. Several: their trials are
pooled and people are left out. All trials take part whatever their split: nothing is chosen by a
score, and every fit is made anew without the group it is tested on. Where the classifier is
chosen (row ``selected``), each fold chooses inside its own training trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from afterimage.bids.names import unit_of
from afterimage.decoding.conditions.csp_lda import CSPLDASettings
from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.decoding.conditions.tangent_space import TangentSpaceSettings
from afterimage.decoding.conditions.window_lda import WindowLDASettings
from afterimage.decoding.conditions.xdawn import XdawnSettings
from afterimage.io.atomic import write_json
from afterimage.io.tables import write_tsv
from afterimage.settings import Settings, StageConfig
from afterimage.stages.condition_contrast import COLUMNS, SELECTED, ContrastDecoding
from afterimage.stages.condition_trials import Trials, contrast_classes, read_condition_trials

if TYPE_CHECKING:
    Classifier = Any  # built below from the registry, which a type checker cannot follow
else:
    Classifier = CLASSIFIERS.union()

VERSION = 2
CITES = ("barachant2012", "blankertz2011", "ramoser2000", "rivet2009", "ojala2010", "varma2006")


class Contrast(Settings):
    """What is told apart, and what is set for it in another way than in the section."""

    classes: dict[str, list[str]] = Field(
        default={}, description="classes by name, each a list of conditions; empty: each condition"
    )
    condition_column: str = Field("", description="label of a trial; empty: as in the section")
    classifiers: list[str] = Field(
        default=[], description="names of classifiers of the section; empty: all"
    )
    tmin_s: float | None = Field(None, description="start of the window; null: as in the section")
    tmax_s: float | None = Field(None, description="end of the window; null: as in the section")
    baseline_s: tuple[float, float] | None = Field(
        None, description="baseline of each trial and channel; null: as in the section"
    )
    average_reference: bool | None = Field(None, description="null: as in the section")


class Config(StageConfig):
    """Which conditions are told apart, by which classifiers, on which part of the trials."""

    classifiers: dict[str, Classifier] = Field(
        default={
            "windowLDA": WindowLDASettings(),
            "xdawn": XdawnSettings(),
            "tangentSpace": TangentSpaceSettings(),
            "cspLDA": CSPLDASettings(),
        },
        description="classifiers by name (letters and digits); each is a row of the table",
    )
    tokens: str = Field(
        "", description="a tokenizer whose tokens of each trial are classified; empty: the signal"
    )
    condition_column: str = Field(
        "", description="label of a trial; default: condition, trial_type or stimulus, the first "
        "there is; a column of participants.tsv works too",
    )  # fmt: skip
    contrasts: dict[str, Contrast] = Field(
        default={},
        description="what is told apart, by name; default: all conditions, one contrast",
    )
    group_column: Literal["auto", "run", "session", "subject"] = Field(
        "auto", description="what is left out; auto: people if there are several, else runs"
    )
    tmin_s: float | None = Field(0.0, description="start of the window, s from onset; null: all")
    tmax_s: float | None = Field(None, description="end of the window; null: all")
    baseline_s: tuple[float, float] | None = Field(
        None, description="subtract the mean over this window of each trial and channel"
    )
    average_reference: bool = Field(False, description="subtract the mean of the EEG channels")
    alarm: bool = Field(
        True,
        description="classify before the stimulus too, or the first 31 ms where there is none",
    )
    leak_comparison: bool = Field(
        True, description="also draw test trials at random, to show what that leaks"
    )
    select: bool = Field(
        True,
        description="also let each fold choose the classifier, by groups left out of its own "
        "training trials: the row 'selected', where there are several classifiers",
    )
    n_permutations: int = Field(
        100, ge=0, description="refits with labels permuted within groups, for chance and p"
    )
    n_bootstraps: int = Field(1000, ge=100, description="resamples of an interval")
    random_state: int | None = Field(None, description="seed; default: the root seed")

    @model_validator(mode="after")
    def _names(self) -> Config:
        if SELECTED in self.classifiers:
            raise ValueError(f"no classifier may be called {SELECTED}: the name of the chosen one")
        for name, contrast in self.contrasts.items():
            if unknown := sorted(set(contrast.classifiers) - set(self.classifiers)):
                raise ValueError(
                    f"contrast {name} names classifiers that there are not: {', '.join(unknown)}"
                )
        return self

    def of(self, contrast: Contrast) -> Config:
        """Return the settings of one contrast: its own, and the section's where it has none."""
        own = contrast.model_dump(exclude={"classes", "classifiers"})
        own = {key: value for key, value in own.items() if value not in (None, "")}
        names = contrast.classifiers or list(self.classifiers)
        chosen = {name: self.classifiers[name] for name in names}
        return self.model_copy(update={**own, "classifiers": chosen})


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: one table of trials a subject, and who the subjects are."""

    trials: tuple[Path, ...]
    participants: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: one row a classifier, protocol, window and metric; and the details."""

    table: Path
    details: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Classify, audit, and write the table and what stands behind it."""
    trials = read_condition_trials(inputs.trials, inputs.participants, config.group_column)
    alone = len(inputs.trials) == 1
    subject = unit_of(inputs.trials[0]).removeprefix("sub-") if alone else "group"
    rows: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    notes = list(trials.notes)
    if config.tokens:
        # A token knows the whole window it was coded in, also what came after it.
        config = config.model_copy(update={"alarm": False})
        notes.append(f"tokens of {config.tokens} stand in place of the signal; no alarm")
    for name, asked in (config.contrasts or {"conditions": Contrast()}).items():
        own = config.of(asked)
        column, conditions = trials.labels(own.condition_column)
        if why := _not_here(trials, column, conditions, alone):
            notes.append(f"{name} was not told apart: {why}")
            continue
        classes = contrast_classes(name, column, conditions, asked.classes)
        part = ContrastDecoding(trials, name, classes, own, threads)
        for found, record in part.decode_all():
            rows += [{"subject": subject, **row} for row in found]
            details.append({"condition_column": column, **record})
    write_tsv(outputs.table, rows, COLUMNS)
    write_json(
        outputs.details,
        {
            "subject": subject,
            "group_column": trials.group_column,
            "n_channels": trials.values.shape[1],
            "sampling_rate_hz": trials.sampling_rate_hz,
            "notes": notes,
            "contrasts": details,
        },
    )


def _not_here(trials: Trials, column: str, conditions: np.ndarray, alone: bool) -> str:
    """Say why a contrast that others may have cannot be told apart here; empty where it can."""
    if alone and column in trials.people and column not in trials.columns:
        return f"{column} belongs to the person, who is {conditions[0]}; see the group"
    names = np.unique(trials.groups)
    if len(names) < 2:
        one = f"all trials are of one {trials.group_column} ({names[0]})"
        none = f"the trials do not say their {trials.group_column}"
        return f"nothing can be left out, {none if names[0] == 'n/a' else one}"
    return ""
