"""Score decoders that are fitted on the first minutes of a subject's recording only.

``_learning.tsv`` holds one row a decoder, amount and metric: the columns of `evaluation.scores`,
and ``analysis`` (``own data``), ``amount`` (as in the settings), ``minutes`` (of recording, breaks
between runs apart; n/a where onsets are unknown), ``n_trials`` and ``n_stimuli`` that were fitted,
and ``note`` where an amount could not be scored. Trials are taken in the order of recording.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from afterimage.bids.names import camel_case, unit_of
from afterimage.decoding.layout import window
from afterimage.decoding.leaks import check_fit
from afterimage.decoding.registry import DECODERS
from afterimage.decoding.streams import Rows, TrialRows
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_shapes, read_blocks
from afterimage.io.tables import write_tsv
from afterimage.io.trials import average_repeats, open_reader, open_trials, read_layout
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder

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
    """What the stage reads; fits see training trials and training pictures only."""

    trials: Path
    features: Path
    test_features: Path


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
    rows = _Study(inputs, config, drawing, device, work).rows()
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
            pieces = [
                reader.read(self.test[start : start + N_TRIALS_BATCH], times=times)
                for start in range(0, len(self.test), N_TRIALS_BATCH)
            ]
            flat = np.concatenate([piece.reshape(len(piece), -1) for piece in pieces])
            self.average, shown, _ = average_repeats(flat, self.stimulus[self.test])
            place = {name: row for row, name in enumerate(self.gallery_names)}
            self.index = np.array([place[name] for name in shown])
            for name, settings in self.config.decoders.items():
                for amount in self.config.amounts:
                    rows += self._fit(name, settings, amount, reader, times)
        return rows

    def _fit(
        self, name: str, settings: Any, amount: str, reader: Any, times: slice
    ) -> list[dict[str, Any]]:
        """Fit one decoder on one amount and score it; a row that says why where it cannot be."""
        n = n_trials_of(amount, len(self.train), self.minutes)
        told: dict[str, Any] = {"analysis": "own data", "amount": amount, "n_trials": n}
        identity = {
            "subject": self.subject,
            "label": camel_case(name, "learning"),
            "decoder": name,
        }
        if n is None:
            why = "the recording is shorter"
            if self.minutes is None and amount.endswith(("min", "h")):
                why = "onsets are unknown, so minutes are"
            return [identity | told | {"note": why}]
        kept = self.train[:n]
        stimuli = self.stimulus[kept]
        told["n_stimuli"] = len(np.unique(stimuli))
        told["minutes"] = None if self.minutes is None or not n else round(self.minutes[n - 1], 2)
        if told["n_stimuli"] < N_STIMULI_MIN:
            note = f"fewer than {N_STIMULI_MIN} different pictures"
            return [identity | told | {"note": note}]
        work = self.work / f"{camel_case(name)}-{n}"
        fitted, extra = self._fitted(settings, kept, stimuli, reader, times, work)
        return [row | told for row in self._score(name, fitted, extra)]

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

    def _score(self, name: str, fitted: Any, extra: dict[str, Any]) -> list[dict[str, Any]]:
        from afterimage.evaluation.scores import prediction_rows

        predicted = fitted.predict(self.average, **extra)[self.block]
        means = {self.block: self.features[self.block].mean(axis=0)}
        rows: list[dict[str, Any]] = prediction_rows(
            {self.block: predicted},
            {self.block: self.gallery[self.block]},
            subject=self.subject,
            label=camel_case(name, "learning"),
            decoder=name,
            index=self.index,
            training_means=means,
            score_matrix=fitted.scores(self.average, self.gallery, **extra),
            resampling=replace(self.drawing),
        ).rows
        return rows
