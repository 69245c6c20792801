"""One contrast of conditions: its trials, and each classifier run on them with its audits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.errors import ConfigError, InputError
from afterimage.stages.condition_trials import Trials

if TYPE_CHECKING:
    from afterimage.evaluation.conditions import Decoding
    from afterimage.evaluation.group_folds import Folds
    from afterimage.stages.decode_conditions import Config

#: Name of the row of all classifiers together, weighed by each fold itself.
STACKED = "stacked"
#: Bins of time the window of the alarm is cut into, at least.
ALARM_BINS = 8
COLUMNS = (
    "subject", "contrast", "classifier", "role", "tmin_s", "tmax_s", "metric", "value", "ci_low",
    "ci_high", "chance", "chance_low", "chance_high", "p", "n", "n_groups", "protocol",
)  # fmt: skip
_KEYS = ("value", "ci_low", "ci_high", "chance", "chance_low", "chance_high", "p")

Found = tuple[list[dict[str, Any]], dict[str, Any]]


class ContrastDecoding:
    """The trials of one contrast, and how each classifier is run on them."""

    def __init__(
        self,
        trials: Trials,
        name: str,
        classes: dict[str, np.ndarray],
        config: Config,
        threads: int,
    ) -> None:
        from afterimage.evaluation.group_folds import label_of_group, leave_groups_out

        self.name, self.config, self.times_s = name, config, trials.times_s
        self.threads = threads
        self.classes = list(classes)
        member = np.stack(list(classes.values()))
        rows = np.flatnonzero(member.any(axis=0))
        self.labels = member[:, rows].argmax(axis=0)
        self.groups, self.unprepared = trials.groups[rows], trials.values[rows]
        self.prepared = _prepare(self.unprepared, trials, config)
        self.column, self.random_state = trials.group_column, config.random_state or 0
        self.folds = leave_groups_out(self.labels, self.groups)
        self.of_group = label_of_group(self.labels, self.groups)

    def decode_all(self) -> Iterator[Found]:
        """Yield rows and record of the classifiers together, where asked, and of each."""
        found, decodings = [], {}
        for name in self.config.classifiers:
            decodings[name], rows, record = self._decode(name)
            found.append((rows, record))
        if self.config.stack and len(decodings) > 1:
            yield self._stack(decodings)
        yield from found

    def _decode(self, name: str) -> tuple[Decoding, list[dict[str, Any]], dict[str, Any]]:
        """Run one classifier: the score, the alarm before the stimulus, and random trials."""
        from afterimage.evaluation.conditions import alarm_window
        from afterimage.evaluation.group_folds import random_folds

        config, notes = self.config, []
        window = (config.tmin_s, config.tmax_s)
        decoding, rows, record = self._scored(
            name, "decoding", window, self.folds, self._protocol()
        )
        scores = {"decoding": record}
        if config.alarm:
            start, end, what = alarm_window(self.times_s)
            protocol = f"{what}; {self._protocol(permuted=False)}"
            try:
                _, more, record = self._scored(name, "alarm", (start, end), self.folds, protocol)
            except ConfigError as error:
                notes.append(f"no alarm: {error.what}")
            else:
                rows, scores["alarm"] = rows + more, record
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
            _, more, scores["leak"] = self._scored(name, "leak", window, folds, protocol)
            rows += more
        settings = config.classifiers[name].model_dump(mode="json")
        return decoding, rows, self._record(name, scores, notes, settings=settings)

    def _stack(self, decodings: dict[str, Decoding]) -> Found:
        """Score all classifiers, weighed by each fold inside its own training trials."""
        from afterimage.evaluation.stacking import stack, weigh_inside

        window = (self.config.tmin_s, self.config.tmax_s)
        classifiers = {
            name: CLASSIFIERS.get(settings.kind)(settings, self.times_s, *window)
            for name, settings in self.config.classifiers.items()
        }
        try:
            found = weigh_inside(
                classifiers, self.prepared, self.labels, self.groups, self.folds,
                n_jobs=self.threads,
            )  # fmt: skip
        except InputError as error:
            return [], self._record(STACKED, {}, [f"none were weighed: {error.what}"])
        protocol = (
            f"{self._protocol(permuted=False)}; {', '.join(decodings)} weighed in each fold by "
            f"{self._thing()}s left out of its training trials"
        )
        times_s = self.times_s[next(iter(classifiers.values())).inside]
        rows, record = self._rows(STACKED, "decoding", times_s, stack(found, decodings), protocol)
        weights, inner = [one.weights for one in found], [one.auc for one in found]
        return rows, self._record(STACKED, {"decoding": record}, [], weights=weights, inner=inner)

    def _record(
        self, name: str, scores: dict[str, Any], notes: list[str], **more: Any
    ) -> dict[str, Any]:
        from afterimage.evaluation.conditions import describe_groups

        return {
            "contrast": self.name,
            "classes": self.classes,
            "classifier": name,
            **more,
            "trials": list(describe_groups(np.array(self.classes)[self.labels], self.groups)),
            "scores": scores,
            "notes": notes,
        }

    def _scored(
        self,
        name: str,
        role: str,
        window: tuple[float | None, float | None],
        folds: Folds,
        protocol: str,
    ) -> tuple[Decoding, list[dict[str, Any]], dict[str, dict[str, Any]]]:
        from afterimage.evaluation.conditions import cross_validate

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
            random_state=self.random_state, n_jobs=self.threads,
        )  # fmt: skip
        return decoding, *self._rows(name, role, times_s[classifier.inside], decoding, protocol)

    def _rows(
        self, name: str, role: str, times_s: np.ndarray, decoding: Decoding, protocol: str
    ) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        """Score evidence by every metric: rows of the table, and the record."""
        from afterimage.evaluation.conditions import METRICS, score

        people = self.column == "subject" and role != "leak"
        scores = {
            metric: score(
                decoding,
                metric,
                resampled="groups" if people else "trials",
                n_bootstraps=self.config.n_bootstraps,
                random_state=self.random_state,
            )
            for metric in METRICS
        }
        rows = [
            {
                "contrast": self.name, "classifier": name, "role": role,
                "tmin_s": float(times_s[0]), "tmax_s": float(times_s[-1]), "metric": metric,
                **{key: getattr(found, key) for key in _KEYS},
                "n": len(self.labels), "n_groups": len(np.unique(self.groups)),
                "protocol": protocol,
            }
            for metric, found in scores.items()
        ]  # fmt: skip
        record = {
            metric: {
                **{key: _number(getattr(found, key)) for key in _KEYS},
                "above_chance": found.above_chance,
                "per_group": found.per_group,
            }
            for metric, found in scores.items()
        }
        return rows, record

    def _thing(self) -> str:
        return {"subject": "person"}.get(self.column, self.column)

    def _protocol(self, permuted: bool = True) -> str:
        thing = self._thing()
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
