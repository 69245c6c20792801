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

import shutil
from collections.abc import Mapping
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
from afterimage.decoding.streams import Rows, Targets, TrialRows
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_means, block_shapes, open_blocks, read_blocks
from afterimage.io.tables import write_tsv
from afterimage.io.trials import average_repeats, open_reader, open_trials, read_layout
from afterimage.io.weights import load_weights
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder, on_disk
from afterimage.stages.control_patterns import moments
from afterimage.stages.recording_amounts import AMOUNT, minutes_recorded, n_trials_of
from afterimage.stages.shared_decoders import (
    KnownSubjects,
    OneSubject,
    subject_data,
    unit_names,
)

if TYPE_CHECKING:
    from afterimage.evaluation.scores import Resampling
    from afterimage.io.arrays import BlockColumns

VERSION = 1
CITES = ("scotti2024",)
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
        self.names, _ = read_blocks(inputs.features, names=[])
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
        usual = "clip" if "clip" in self.gallery else next(iter(self.gallery))
        self.block = config.block or usual
        self.means = block_means(inputs.features, [self.block])

    def rows(self) -> list[dict[str, Any]]:
        if len(np.unique(self.stimulus[self.test])) < 2:
            return []
        rows: list[dict[str, Any]] = []
        with open_reader(self.inputs.trials) as reader, open_blocks(self.inputs.features) as known:
            features = {block: known[block] for block in self.gallery}
            times = reader.window(self.config.tmin_s, self.config.tmax_s)
            self.average = self._average(reader, times)
            for name, settings in self.config.decoders.items():
                for amount in self.config.amounts:
                    rows += self._fit(name, settings, amount, reader, times, features)
        return rows

    def _fit(
        self,
        name: str,
        settings: Any,
        amount: str,
        reader: Any,
        times: slice,
        features: dict[str, BlockColumns],
    ) -> list[dict[str, Any]]:
        """Fit one decoder on one amount and score it; a row that says why where it cannot be."""
        told, kept = self._first(amount)
        told["analysis"] = "own data"
        if told.get("note"):
            return [self._identity(name) | told]
        work = self.work / f"{camel_case(name)}-{len(kept)}"
        fitted, extra = self._fitted(settings, kept, features, reader, times, work)
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
        rows: list[dict[str, Any]] = []
        with ExitStack() as stack:
            data, _ = subject_data(self.inputs.trials, self.inputs.features, tmin_s, tmax_s, stack)
            reader = stack.enter_context(open_reader(self.inputs.trials))
            # it compares by blocks of its own
            gallery = stack.enter_context(open_blocks(self.inputs.test_features))
            average = self._average(reader, reader.window(tmin_s, tmax_s))
            told = {"analysis": "zero-shot", "amount": "0 trials", "n_trials": 0, "n_stimuli": 0}
            own = unit_names(self.inputs.trials)
            alike = [
                label
                for label, units in card["units"].items()
                if own and units == own and arrays[f"unit_mean/{label}"].shape == average.shape[1:]
            ]
            if alike:
                before = KnownSubjects(new(settings, arrays), alike, *moments(data.responses))
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
                    self.subject, few, held_out, device=self.device, checkpoint_folder=work,
                    allocate=on_disk(work / "features"),
                )  # fmt: skip
                after = OneSubject(decoder, self.subject)
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
        self, settings: Any, kept: np.ndarray, features: dict[str, BlockColumns], reader: Any,
        times: slice, work: Path,
    ) -> tuple[Any, dict[str, Any]]:  # fmt: skip
        settings = settings.model_copy(update={"random_state": self.drawing.random_state})
        decoder = DECODERS.get(settings.kind)(settings)
        place = {name: row for row, name in enumerate(self.names)}
        stimuli = self.stimulus[kept]
        order = np.array([place[name] for name in stimuli])
        held_out = set(self.stimulus[self.test])
        if getattr(decoder, "needs_layout", False):
            layout = window(
                read_layout(self.inputs.trials), self.config.tmin_s, self.config.tmax_s
            )
            streams = {block: Rows(values, order) for block, values in features.items()}
            responses = TrialRows(reader, kept, times)
            decoder.fit(
                responses, streams, stimuli, held_out, layout=layout, device=self.device,
                checkpoint_folder=work,
            )  # fmt: skip
            return decoder, {"layout": layout}
        flat = reader.read(kept, times=times).reshape(len(kept), -1)
        if getattr(decoder, "streams", False):
            targets = {
                block: Targets(values.columns, order, values.shape[1])
                for block, values in features.items()
            }
            decoder.fit(flat, targets, stimuli, held_out, allocate=on_disk(work))
        else:
            whole = {block: values[order] for block, values in features.items()}
            decoder.fit(flat, whole, stimuli, held_out)
        return decoder, {}

    def _score(
        self,
        name: str,
        fitted: Any,
        average: np.ndarray,
        gallery: Mapping[str, Any],
        extra: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        from afterimage.evaluation.scores import prediction_rows

        extra = extra or {}
        predicted = fitted.predict(average, **extra)[self.block]
        rows: list[dict[str, Any]] = prediction_rows(
            {self.block: predicted},
            {self.block: gallery[self.block][:]},
            subject=self.subject,
            label=camel_case(name, "learning"),
            decoder=name,
            index=self.index,
            training_means=self.means,
            score_matrix=fitted.scores(average, gallery, **extra),
            resampling=replace(self.drawing),
        ).rows
        return rows
