"""Tell the conditions of trials apart, leaving out runs of one subject or people of several.

One table of trials: one subject, runs (or sessions) left out in turn. Several: their trials are
pooled and people are left out. All trials take part whatever their split: nothing is chosen by a
score, and every fit is made anew without the group it is tested on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.decoding.conditions.csp_lda import CSPLDASettings
from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.decoding.conditions.tangent_space import TangentSpaceSettings
from afterimage.decoding.conditions.window_lda import WindowLDASettings
from afterimage.decoding.conditions.xdawn import XdawnSettings
from afterimage.errors import ConfigError, InputError
from afterimage.io.atomic import write_json
from afterimage.io.tables import write_tsv
from afterimage.settings import StageConfig
from afterimage.stages.condition_trials import Trials, contrast_labels, read_condition_trials

if TYPE_CHECKING:
    from afterimage.evaluation.conditions import Folds, Score

    Classifier = Any  # built below from the registry, which a type checker cannot follow
else:
    Classifier = CLASSIFIERS.union()

VERSION = 1
#: Bins of time the window of the alarm is cut into, at least.
ALARM_BINS = 8
CITES = ("barachant2012", "blankertz2011", "ramoser2000", "rivet2009", "ojala2010")
COLUMNS = (
    *("subject", "contrast", "classifier", "role", "tmin_s", "tmax_s", "metric", "value"),
    *(
        "ci_low",
        "ci_high",
        "chance",
        "chance_low",
        "chance_high",
        "p",
        "n",
        "n_groups",
        "protocol",
    ),
)


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
    condition_column: str = Field(
        "", description="label of a trial; default: condition, trial_type or stimulus, the first "
        "there is; a column of participants.tsv works too",
    )  # fmt: skip
    contrasts: dict[str, dict[str, list[str]]] = Field(
        default={},
        description="contrasts by name: classes by name, each a list of conditions; default: one "
        "contrast of all conditions",
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
    n_permutations: int = Field(
        100, ge=0, description="refits with labels permuted within groups, for chance and p"
    )
    n_bootstraps: int = Field(1000, ge=100, description="resamples of an interval")
    random_state: int | None = Field(None, description="seed; default: the root seed")


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
    trials = read_condition_trials(
        inputs.trials, inputs.participants, config.condition_column, config.group_column
    )
    subject = (
        unit_of(inputs.trials[0]).removeprefix("sub-") if len(inputs.trials) == 1 else "group"
    )
    rows: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    for contrast, classes in contrast_labels(trials, config.contrasts).items():
        part = _Contrast(trials, contrast, classes, config)
        for name in config.classifiers:
            found, record = part.decode(name)
            rows += [{"subject": subject, **row} for row in found]
            details.append(record)
    write_tsv(outputs.table, rows, COLUMNS)
    write_json(
        outputs.details,
        {
            "subject": subject,
            "condition_column": trials.condition_column,
            "group_column": trials.group_column,
            "n_channels": trials.values.shape[1],
            "sampling_rate_hz": trials.sampling_rate_hz,
            "notes": trials.notes,
            "contrasts": details,
        },
    )


class _Contrast:
    """The trials of one contrast, and how each classifier is run on them."""

    def __init__(
        self, trials: Trials, name: str, classes: dict[str, np.ndarray], config: Config
    ) -> None:
        from afterimage.evaluation.conditions import label_of_group, leave_groups_out

        self.name, self.config, self.times_s = name, config, trials.times_s
        self.classes = list(classes)
        member = np.stack(list(classes.values()))
        rows = np.flatnonzero(member.any(axis=0))
        self.labels = member[:, rows].argmax(axis=0)
        self.groups, self.unprepared = trials.groups[rows], trials.values[rows]
        self.prepared = _prepare(self.unprepared, trials, config)
        self.column, self.random_state = trials.group_column, config.random_state or 0
        self.folds = leave_groups_out(self.labels, self.groups)
        self.of_group = label_of_group(self.labels, self.groups)

    def decode(self, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Run one classifier: the score, the alarm before the stimulus, and random trials."""
        from afterimage.evaluation.conditions import alarm_window, describe_groups, random_folds

        settings, config = self.config.classifiers[name], self.config
        window, notes = (config.tmin_s, config.tmax_s), []
        rows, record = self._scored(name, "decoding", window, self.folds, self._protocol())
        found = {"decoding": record}
        if config.alarm:
            start, end, what = alarm_window(self.times_s)
            protocol = f"{what}; {self._protocol(permuted=False)}"
            try:
                more, record = self._scored(name, "alarm", (start, end), self.folds, protocol)
            except ConfigError as error:
                notes.append(f"no alarm: {error.what}")
            else:
                rows, found["alarm"] = rows + more, record
                if any(record[metric]["above_chance"] for metric in record):
                    notes.append(
                        f"the alarm rings: {what} ({start:.3f} to {end:.3f} s) the classes are "
                        f"told apart with AUC {record['auc']['value']:.2f} "
                        f"[{record['auc']['ci_low']:.2f}, {record['auc']['ci_high']:.2f}]: part of "
                        "the score is not an answer to the stimulus"
                    )
        if config.leak_comparison:
            folds = random_folds(self.labels, random_state=self.random_state)
            protocol = (
                f"trials drawn at random, {len(folds)} folds: the {self.column} is on both sides, "
                "do not report"
            )
            more, found["leak"] = self._scored(name, "leak", window, folds, protocol)
            rows += more
        return rows, {
            "contrast": self.name,
            "classes": self.classes,
            "classifier": name,
            "settings": settings.model_dump(mode="json"),
            "trials": list(describe_groups(np.array(self.classes)[self.labels], self.groups)),
            "scores": found,
            "notes": notes,
        }

    def _scored(
        self,
        name: str,
        role: str,
        window: tuple[float | None, float | None],
        folds: Folds,
        protocol: str,
    ) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        from afterimage.evaluation.conditions import METRICS, cross_validate, score

        settings, alarm = self.config.classifiers[name], role == "alarm"
        # The alarm hears the trial before its baseline, and filters see nothing of the answer.
        trials, times_s = self.prepared, self.times_s
        if alarm:
            inside = (times_s >= window[0]) & (times_s <= window[1])
            trials, times_s = self.unprepared[:, :, inside], times_s[inside]
            if hasattr(settings, "bin_s"):  # one or two bins would leave the alarm deaf
                finest = (times_s[-1] - times_s[0]) / ALARM_BINS
                settings = settings.model_copy(update={"bin_s": min(settings.bin_s, finest)})
        classifier = CLASSIFIERS.get(settings.kind)(settings, times_s, *window)
        decoding = cross_validate(
            classifier, trials, self.labels, self.groups, folds,
            n_permutations=self.config.n_permutations if role == "decoding" else 0,
            random_state=self.random_state,
        )  # fmt: skip
        people = self.column == "subject" and role != "leak"
        scores: dict[str, Score] = {
            metric: score(
                decoding,
                metric,
                resampled="groups" if people else "trials",
                n_bootstraps=self.config.n_bootstraps,
                random_state=self.random_state,
            )
            for metric in METRICS
        }
        start, end = (float(times_s[classifier.inside][i]) for i in (0, -1))
        keys = ("value", "ci_low", "ci_high", "chance", "chance_low", "chance_high", "p")
        rows = [
            {
                "contrast": self.name, "classifier": name, "role": role,
                "tmin_s": start, "tmax_s": end, "metric": metric,
                **{key: getattr(found, key) for key in keys},
                "n": len(self.labels), "n_groups": len(np.unique(self.groups)),
                "protocol": protocol,
            }
            for metric, found in scores.items()
        ]  # fmt: skip
        record = {
            metric: {
                **{key: _number(getattr(found, key)) for key in keys},
                "above_chance": found.above_chance,
                "per_group": found.per_group,
            }
            for metric, found in scores.items()
        }
        return rows, record

    def _protocol(self, permuted: bool = True) -> str:
        thing = {"subject": "person"}.get(self.column, self.column)
        words = f"leave one {thing} out, {len(self.folds)} folds"
        if self.of_group:
            words = f"leave {thing}s out, {len(self.folds)} folds"
        words += "; interval over " + (
            "those left out" if self.column == "subject" else f"trials within {thing}s"
        )
        if permuted and self.config.n_permutations:
            where = f"over {thing}s" if self.of_group else f"within {thing}s"
            words += f"; chance: {self.config.n_permutations} refits, labels permuted {where}"
        return words


def _prepare(values: np.ndarray, trials: Trials, config: Config) -> np.ndarray:
    """Subtract baseline and average reference where asked; a new array, same shape."""
    if config.baseline_s is not None:
        low, high = config.baseline_s
        inside = (trials.times_s >= low) & (trials.times_s <= high)
        if not inside.any():
            raise ConfigError(
                "the baseline holds no sample", found=f"{low} to {high} s",
                expected=f"within {trials.times_s[0]:.3f} to {trials.times_s[-1]:.3f} s",
                fix="change decode_conditions.baseline_s",
            )  # fmt: skip
        values = values - values[:, :, inside].mean(axis=2, keepdims=True)
    if config.average_reference:
        eeg = trials.kinds == "eeg"
        if eeg.sum() < 2:
            raise InputError(
                "an average reference needs EEG channels", found=f"{int(eeg.sum())} of kind eeg",
                expected="two or more", fix="set decode_conditions.average_reference to false",
            )  # fmt: skip
        values = values.copy()
        values[:, eeg] -= values[:, eeg].mean(axis=1, keepdims=True)
    return values


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
