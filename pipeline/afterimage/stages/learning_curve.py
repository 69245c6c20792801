"""Score decoders that are fitted on the first minutes of a subject's recording only.

``_learning.tsv`` holds one row a decoder, amount and metric: the columns of `evaluation.scores`,
and ``analysis``, ``amount`` (as in the settings), ``minutes`` (of recording, breaks between runs
apart; n/a where onsets are unknown), ``n_trials`` and ``n_stimuli`` that were fitted, and ``note``
where an amount could not be scored. Trials are taken in the order of recording.

``analysis`` is ``own data``, a decoder fitted on this subject alone; ``adapted``, a decoder of
other subjects, adapted; or ``zero-shot``, the mean of what that decoder takes the responses for
when they were those of each subject it knows, with responses standardised by the subject's own
training trials (their pictures are not looked at). Zero-shot needs the very units of the others
(channels or parcels of equal names): voxels of two people are not the same place.
"""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from afterimage.bids.names import camel_case, unit_of
from afterimage.decoding.layout import window
from afterimage.decoding.leaks import check_fit
from afterimage.decoding.registry import DECODERS, SHARED_DECODERS
from afterimage.decoding.streams import Rows, TrialRows
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_shapes, read_blocks
from afterimage.io.tables import write_tsv
from afterimage.io.trials import average_repeats, open_reader, open_trials, read_layout
from afterimage.io.weights import load_weights
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder
from afterimage.stages.control_patterns import moments
from afterimage.stages.shared_decoders import subject_data, unit_names

if TYPE_CHECKING:
    from afterimage.evaluation.scores import Resampling

VERSION = 1
CITES = ("scotti2024",)
AMOUNT = re.compile(r"(?P<number>\d+(\.\d+)?) ?(?P<unit>min|h|trials|%)|all")
#: Different training pictures below which nothing can be chosen on held-out ones.
N_STIMULI_MIN = 10
N_TRIALS_BATCH = 512

if TYPE_CHECKING:
    Decoder = Any  # built below from the registry, which a type checker cannot follow
else:
    Decoder = DECODERS.union()


class Config(StageConfig):
    """How much of a subject's data decoders are fitted on, one fit an amount."""

    enabled: bool = Field(False, description="whether decoders are fitted on parts of the data")
    amounts: tuple[str, ...] = Field(
        ("15 min", "1 h", "2 h", "all"),
        min_length=1,
        description="first part of the training trials: 15 min, 1 h, 100 trials, 25 %, all",
    )
    decoders: dict[str, Decoder] = Field(
        default={}, description="decoders by name; empty: those of train_decoder"
    )
    tmin_s: float | None = Field(None, description="start of the window of a trial; null: all")
    tmax_s: float | None = Field(None, description="end of that window; null: all")
    block: str = Field(
        "", description="feature block in which pictures are told apart; empty: clip, or the first"
    )
    blocks: tuple[str, ...] = Field(
        (), description="feature blocks that decoders are fitted to; empty: all"
    )
    n_bootstraps: int = Field(1000, ge=100, description="resamples of an interval")
    n_permutations: int = Field(1000, ge=100, description="permuted pairs of a chance level")
    random_state: int | None = Field(None, description="seed; default: the root seed")

    @field_validator("amounts")
    @classmethod
    def _are_amounts(cls, amounts: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [amount for amount in amounts if not AMOUNT.fullmatch(amount)]
        if wrong:
            raise ValueError(
                f"{wrong[0]!r} is none of '15 min', '1 h', '100 trials', '25 %', 'all'"
            )
        return amounts


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; fits see training trials and training pictures only.

    ``shared`` are decoders of other subjects, for a subject who took no part in their fit.
    """

    trials: Path
    features: Path
    test_features: Path
    shared: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    table: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Fit every decoder on every amount, score it on all test pictures, write the table."""
    from afterimage.evaluation.scores import COLUMNS, Resampling

    drawing = Resampling(
        n_bootstraps=config.n_bootstraps,
        n_permutations=config.n_permutations,
        random_state=config.random_state or 0,
    )
    work = checkpoint_folder("learning_curve", VERSION, config, inputs, outputs.table)
    study = _Study(inputs, config, drawing, device, work)
    rows = study.rows()
    for path in inputs.shared:
        rows += study.adapted(path)
    more = ("analysis", "amount", "minutes", "n_trials", "n_stimuli", "note")
    write_tsv(outputs.table, rows, [*COLUMNS, *more])
    shutil.rmtree(work.parent, ignore_errors=True)


def minutes_recorded(
    session: np.ndarray, run: np.ndarray, onset_s: np.ndarray
) -> np.ndarray | None:
    """Minutes of recording until the end of each trial, breaks between runs apart.

    A trial lasts until the next one of its run, the last of a run as long as the median.

    Parameters
    ----------
    session, run : (n_trials,) of str
        Of trials in the order of recording.
    onset_s : (n_trials,) float
        From the start of the run.

    Returns
    -------
    (n_trials,) float, or None where an onset is unknown
    """
    onset_s = np.asarray(onset_s, np.float64)
    if len(onset_s) < 2 or not np.isfinite(onset_s).all():
        return None
    same = (session[1:] == session[:-1]) & (run[1:] == run[:-1])
    step_s = np.diff(onset_s)
    if not same.any() or (step_s[same] < 0).any():
        return None
    length_s = np.append(np.where(same, step_s, np.nan), np.nan)
    length_s[np.isnan(length_s)] = np.median(step_s[same])
    return np.cumsum(length_s) / 60


def n_trials_of(amount: str, n_trials: int, minutes: np.ndarray | None) -> int | None:
    """How many of the trials an amount is; None where they are fewer, or time is unknown."""
    found = AMOUNT.fullmatch(amount)
    if found is None or found["unit"] is None:
        return n_trials
    number = float(found["number"])
    if found["unit"] in ("min", "h"):
        if minutes is None:
            return None
        limit = number * (60 if found["unit"] == "h" else 1)
        n = int(np.searchsorted(minutes, limit * (1 + 1e-9), side="right"))
        return n if minutes[-1] >= limit else None
    n = round(number if found["unit"] == "trials" else n_trials * number / 100)
    return n if n <= n_trials else None


@dataclass(frozen=True)
class _Adapted:
    """A decoder of several subjects, asked for one of them."""

    decoder: Any
    subject: str

    def predict(self, patterns: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = self.decoder.predict(patterns, self.subject)
        return found

    def scores(self, patterns: np.ndarray, gallery: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray(self.decoder.scores(patterns, gallery, self.subject))


@dataclass(frozen=True)
class _Unadapted:
    """A decoder of several subjects, asked for a new one as if it were each of them; the mean."""

    decoder: Any
    subjects: list[str]
    mean: np.ndarray  # (n_values,), of the new subject's training responses
    deviation: np.ndarray

    def _as(self, patterns: np.ndarray, subject: str) -> np.ndarray:
        state = self.decoder.state(subject)
        standard = (patterns - self.mean) / np.where(self.deviation > 0, self.deviation, 1)
        moved = standard * state[f"unit_scale/{subject}"] + state[f"unit_mean/{subject}"]
        return np.asarray(moved, np.float32)

    def predict(self, patterns: np.ndarray) -> dict[str, np.ndarray]:
        each = [self.decoder.predict(self._as(patterns, one), one) for one in self.subjects]
        return {block: np.mean([one[block] for one in each], axis=0) for block in each[0]}

    def scores(self, patterns: np.ndarray, gallery: dict[str, np.ndarray]) -> np.ndarray:
        each = [self.decoder.scores(self._as(patterns, s), gallery, s) for s in self.subjects]
        return np.asarray(np.mean(each, axis=0))


class _Study:
    """The trials of one subject in the order of recording, and the pictures to tell apart."""

    def __init__(
        self, inputs: Inputs, config: Config, drawing: Resampling, device: str, work: Path
    ) -> None:
        self.inputs, self.config, self.drawing, self.device = inputs, config, drawing, device
        self.work = work
        self.subject = unit_of(inputs.trials).removeprefix("sub-")
        there = sorted(block_shapes(inputs.features))
        wanted = {*config.blocks, *([config.block] if config.block else [])}
        if wanted - set(there):
            raise ConfigError(
                "a feature block of the learning curve is not there", where=str(inputs.features),
                found=", ".join(sorted(wanted - set(there))), expected=", ".join(there),
                fix="set learning_curve: blocks and block to encoders of extract_features",
            )  # fmt: skip
        blocks = sorted(wanted) if config.blocks else None
        self.names, self.features = read_blocks(inputs.features, names=blocks)
        self.gallery_names, self.gallery = read_blocks(inputs.test_features, names=blocks)
        with open_trials(inputs.trials) as trials:
            order = {
                name: trials[name].values
                for name in ("session", "run", "onset", "stimulus", "split")
                if name in trials.coords
            }
        n = len(order["stimulus"])
        stimulus = order["stimulus"].astype(str)
        onset_s = np.asarray(order.get("onset", np.full(n, np.nan)), np.float64)
        session = np.asarray(order.get("session", np.full(n, "")), str)
        run = np.asarray(order.get("run", np.full(n, "")), str)
        split = order["split"].astype(str)
        train = np.flatnonzero((split == "train") & np.isin(stimulus, self.names))
        train = train[np.lexsort((train, onset_s[train], run[train], session[train]))]
        self.train, self.stimulus = train, stimulus
        self.minutes = minutes_recorded(session[train], run[train], onset_s[train])
        test = np.flatnonzero((split == "test") & np.isin(stimulus, self.gallery_names))
        self.test = test
        check_fit(stimulus[train], stimulus[test])
        usual = "clip" if "clip" in self.features else next(iter(self.features))
        self.block = config.block or usual

    def rows(self) -> list[dict[str, Any]]:
        if len(np.unique(self.stimulus[self.test])) < 2:
            return []
        rows: list[dict[str, Any]] = []
        with open_reader(self.inputs.trials) as reader:
            times = reader.window(self.config.tmin_s, self.config.tmax_s)
            self.average = self._average(reader, times)
            for name, settings in self.config.decoders.items():
                for amount in self.config.amounts:
                    rows += self._fit(name, settings, amount, reader, times)
        return rows

    def _fit(
        self, name: str, settings: Any, amount: str, reader: Any, times: slice
    ) -> list[dict[str, Any]]:
        """Fit one decoder on one amount and score it; a row that says why where it cannot be."""
        told, kept = self._first(amount)
        told["analysis"] = "own data"
        if told.get("note"):
            return [self._identity(name) | told]
        work = self.work / f"{camel_case(name)}-{len(kept)}"
        fitted, extra = self._fitted(settings, kept, self.stimulus[kept], reader, times, work)
        return [row | told for row in self._score(name, fitted, self.average, self.gallery, extra)]

    def _first(self, amount: str) -> tuple[dict[str, Any], np.ndarray]:
        """Return what an amount is, with a note where it cannot be fitted on, and its trials."""
        n = n_trials_of(amount, len(self.train), self.minutes)
        told: dict[str, Any] = {"amount": amount, "n_trials": n}
        if n is None:
            told["note"] = "the recording is shorter"
            if self.minutes is None and amount.endswith(("min", "h")):
                told["note"] = "onsets are unknown, so minutes are"
            return told, self.train[:0]
        kept = self.train[:n]
        told["n_stimuli"] = len(np.unique(self.stimulus[kept]))
        told["minutes"] = None if self.minutes is None or not n else round(self.minutes[n - 1], 2)
        if told["n_stimuli"] < N_STIMULI_MIN:
            told["note"] = f"fewer than {N_STIMULI_MIN} different pictures"
        return told, kept

    def _identity(self, name: str) -> dict[str, Any]:
        label = camel_case(name, "learning")
        return {"subject": self.subject, "label": label, "decoder": name}

    def adapted(self, path: Path) -> list[dict[str, Any]]:
        """Adapt a decoder of other subjects to this one, on every amount; ask it before that, too."""
        arrays, card = load_weights(path)
        settings = SHARED_DECODERS.settings(card["settings"]["kind"])(**card["settings"])
        name, (tmin_s, tmax_s) = card["decoder"], card["window_s"]
        new = SHARED_DECODERS.get(card["settings"]["kind"]).from_state
        held_out = set(self.stimulus[self.test])
        check_fit({one for seen in card["fitted_on"].values() for one in seen}, held_out)
        if len(held_out) < 2:
            return []
        _, gallery = read_blocks(self.inputs.test_features)  # it compares by blocks of its own
        rows: list[dict[str, Any]] = []
        with ExitStack() as stack:
            data, _ = subject_data(self.inputs.trials, self.inputs.features, tmin_s, tmax_s, stack)
            reader = stack.enter_context(open_reader(self.inputs.trials))
            average = self._average(reader, reader.window(tmin_s, tmax_s))
            told = {"analysis": "zero-shot", "amount": "0 trials", "n_trials": 0, "n_stimuli": 0}
            own = unit_names(self.inputs.trials)
            alike = [
                label
                for label, units in card["units"].items()
                if own and units == own and arrays[f"unit_mean/{label}"].shape == average.shape[1:]
            ]
            if alike:
                before = _Unadapted(new(settings, arrays), alike, *moments(data.responses))
                rows += [row | told for row in self._score(name, before, average, gallery)]
            else:
                told["note"] = "units (and times) are not those of the subjects of the fit"
                rows.append(self._identity(name) | told)
            place = np.flatnonzero(reader.split == "train")
            for amount in self.config.amounts:
                told, kept = self._first(amount)
                told["analysis"] = "adapted"
                if told.get("note"):
                    rows.append(self._identity(name) | told)
                    continue
                few = data.only(np.searchsorted(place, kept))
                decoder = new(settings, arrays)
                work = self.work / f"{camel_case(name, 'adapted')}-{len(kept)}"
                decoder.adapt(
                    self.subject, few, held_out, device=self.device, checkpoint_folder=work
                )
                after = _Adapted(decoder, self.subject)
                rows += [row | told for row in self._score(name, after, average, gallery)]
        return rows

    def _average(self, reader: Any, times: slice) -> np.ndarray:
        """Mean response to each test picture, in the order of `index`, (n_pictures, n_values)."""
        pieces = [
            reader.read(self.test[start : start + N_TRIALS_BATCH], times=times)
            for start in range(0, len(self.test), N_TRIALS_BATCH)
        ]
        flat = np.concatenate([piece.reshape(len(piece), -1) for piece in pieces])
        average, shown, _ = average_repeats(flat, self.stimulus[self.test])
        place = {name: row for row, name in enumerate(self.gallery_names)}
        self.index = np.array([place[name] for name in shown])
        return average

    def _fitted(
        self, settings: Any, kept: np.ndarray, stimuli: np.ndarray, reader: Any, times: slice,
        work: Path,
    ) -> tuple[Any, dict[str, Any]]:  # fmt: skip
        settings = settings.model_copy(update={"random_state": self.drawing.random_state})
        decoder = DECODERS.get(settings.kind)(settings)
        place = {name: row for row, name in enumerate(self.names)}
        order = np.array([place[name] for name in stimuli])
        held_out = set(self.stimulus[self.test])
        if getattr(decoder, "needs_layout", False):
            layout = window(
                read_layout(self.inputs.trials), self.config.tmin_s, self.config.tmax_s
            )
            streams = {block: Rows(values, order) for block, values in self.features.items()}
            responses = TrialRows(reader, kept, times)
            decoder.fit(
                responses, streams, stimuli, held_out, layout=layout, device=self.device,
                checkpoint_folder=work,
            )  # fmt: skip
            return decoder, {"layout": layout}
        flat = reader.read(kept, times=times).reshape(len(kept), -1)
        features = {block: values[order] for block, values in self.features.items()}
        decoder.fit(flat, features, stimuli, held_out)
        return decoder, {}

    def _score(
        self,
        name: str,
        fitted: Any,
        average: np.ndarray,
        gallery: dict[str, np.ndarray],
        extra: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        from afterimage.evaluation.scores import prediction_rows

        extra = extra or {}
        predicted = fitted.predict(average, **extra)[self.block]
        means = {self.block: self.features[self.block].mean(axis=0)}
        rows: list[dict[str, Any]] = prediction_rows(
            {self.block: predicted},
            {self.block: gallery[self.block]},
            subject=self.subject,
            label=camel_case(name, "learning"),
            decoder=name,
            index=self.index,
            training_means=means,
            score_matrix=fitted.scores(average, gallery, **extra),
            resampling=replace(self.drawing),
        ).rows
        return rows
