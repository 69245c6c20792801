"""Ask when, over how many repetitions and how stably one subject's responses tell the pictures.

``_time.tsv`` holds one row an analysis, window or k, and metric (`COLUMNS` of
`evaluation.gallery`); column ``analysis`` is one of

* ``repetitions``: trials of an image averaged over ``k``; the only one without a time axis;
* ``sliding``, ``growing``: decoding windows ``window_start_s`` to ``window_end_s`` (end excluded);
* ``prestimulus``: mean of the sliding windows that end before the onset: the leak alarm. The
  column ``alarm`` says ``rings`` where the interval lies above chance, else ``quiet``;
* ``peak_latency``: where the sliding curve peaks, seconds; ``window_*`` are the range searched.

``_time.nc`` holds the same curves as arrays, for figures. Coordinates: ``metric`` (twoway,
retrieval_top1, retrieval_top5; those that the gallery allows), ``k``, and, with a time axis only,
``sliding`` and ``growing`` (number of the window), ``train_time_s`` and ``test_time_s``. Variables:

* for each of ``repetitions`` (metric, k), ``sliding`` (metric, sliding), ``growing`` (metric,
  growing): ``<name>_value``, ``_ci_low``, ``_ci_high``, ``_chance``, ``_chance_low``,
  ``_chance_high``, ``_p`` and, for the windows, ``_p_corrected`` (maximum statistic over windows);
* ``repetitions_expected`` (metric, k): what independent noise averaged k times predicts from k = 1;
  NaN for twoway. ``repetitions_n`` (k): images that have k repeats;
* ``sliding_start_s``, ``sliding_end_s`` (sliding), the same for ``growing``;
* ``generalisation_value``, ``generalisation_p_corrected`` (metric, train_time_s, test_time_s),
  ``generalisation_chance``, ``generalisation_threshold`` (metric): 95 % quantile of the maximum
  over the matrix by permuted pairs;
* ``peak_latency_s``, ``peak_latency_ci_low_s``, ``peak_latency_ci_high_s`` (metric);
* ``prestimulus_value``, ``prestimulus_ci_low``, ``prestimulus_ci_high``, ``prestimulus_chance``,
  ``prestimulus_rings`` (metric): the leak alarm; absent where no window ends before the onset.

Attributes: ``subject``, ``block``, ``n_gallery``, ``n_training_trials``, ``n_test_trials``,
``has_time`` (0 or 1), ``notes``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.decoding.leaks import check_fit
from afterimage.errors import ConfigError, InputError
from afterimage.io.arrays import block_shapes, read_blocks, write_dataset
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.io.trials import open_reader
from afterimage.settings import StageConfig

if TYPE_CHECKING:
    from afterimage.evaluation.gallery import Curve
    from afterimage.evaluation.repetitions import RepetitionCurve
    from afterimage.evaluation.scores import Resampling
    from afterimage.evaluation.time_resolved import Decoding, Kind, Window
    from afterimage.evaluation.time_summary import LeakAlarm
    from afterimage.evaluation.window_ridge import LinearMap

VERSION = 2
CITES = ("cichy2014", "king2014", "nichols2002", "gifford2022")
#: Test trials decoded at once.
N_TRIALS_BATCH = 512
#: Fields of a curve that are stored, by their name in the file.
FIELDS = {
    "value": "value", "ci_low": "low", "ci_high": "high", "chance": "chance",
    "chance_low": "chance_low", "chance_high": "chance_high", "p": "p",
    "p_corrected": "p_corrected",
}  # fmt: skip


class Config(StageConfig):
    """Windows, repetitions, and the linear decoder that asks for the pictures in each."""

    block: str = Field(
        "", description="feature block in which pictures are told apart; empty: clip, or the first"
    )
    window_s: float = Field(0.1, gt=0, description="length of a sliding window")
    step_s: float = Field(
        0.05, gt=0, description="step of sliding and growing windows, and bin of generalisation"
    )
    bin_s: float = Field(
        0.02, ge=0, description="samples of a sliding window averaged before the fit; 0: none"
    )
    k_values: tuple[int, ...] = Field(
        (1, 2, 4, 8, 16, 32, 64),
        description="test trials averaged; the most repeats that there are is added",
    )
    n_draws: int = Field(20, ge=1, description="random subsets of k repeats of an image")
    generalisation: bool = Field(True, description="also ask every time bin at all others")
    alphas: tuple[float, ...] = Field(
        (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0),
        min_length=1,
        description="penalties to choose from, in units of the mean squared norm of a trial",
    )
    n_folds: int = Field(5, ge=2, description="grouped folds inside the training trials")
    max_training_trials: int = Field(
        5000, ge=10, description="training trials used at most; a random part of more"
    )
    n_bootstraps: int = Field(1000, ge=100, description="resamples of an interval")
    n_permutations: int = Field(1000, ge=100, description="permuted pairs of a chance level")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; fits see training trials and training pictures only."""

    trials: Path
    features: Path
    test_features: Path
    split: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    table: Path
    arrays: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Fit windows, score them, and write rows and curves; without test pictures, write none."""
    from afterimage.evaluation.gallery import COLUMNS
    from afterimage.evaluation.scores import Resampling

    subject = unit_of(inputs.trials).removeprefix("sub-")
    drawing = Resampling(
        n_bootstraps=config.n_bootstraps,
        n_permutations=config.n_permutations,
        random_state=config.random_state or 0,
    )
    study = _Study(inputs, config, subject, drawing)
    if study.n_images >= 2:
        study.score()
    else:
        study.notes.append("fewer than two test pictures have trials and features: nothing scored")
    write_tsv(outputs.table, study.rows, COLUMNS)
    write_dataset(outputs.arrays, study.dataset())


class _Study:
    """The trials of one subject, what is fitted on them, and the rows and arrays that come out."""

    def __init__(self, inputs: Inputs, config: Config, subject: str, drawing: Resampling) -> None:
        self.inputs, self.config, self.subject, self.drawing = inputs, config, subject, drawing
        self.label = "windowRidge"
        self.rows: list[dict[str, Any]] = []
        self.arrays: dict[str, Any] = {}
        self.coordinates: dict[str, Any] = {}
        self.notes: list[str] = []
        known_blocks = sorted(block_shapes(inputs.features))
        usual = "clip" if "clip" in known_blocks else known_blocks[0]
        self.block = config.block or usual
        self.gallery_names, self.gallery = _block(inputs.test_features, self.block)
        names, targets = _block(inputs.features, self.block)
        with open_reader(inputs.trials) as reader:
            self.has_time = reader.times_s is not None
            times_s = reader.times_s if reader.times_s is not None else np.zeros(1)
            self.times_s = np.asarray(times_s, np.float64)
            known = np.isin(reader.stimulus, self.gallery_names)
            self.test_rows = np.flatnonzero((reader.split == "test") & known)
            self.test_stimuli = reader.stimulus[self.test_rows]
            self.n_images = len(np.unique(self.test_stimuli))
            rows = np.flatnonzero((reader.split == "train") & np.isin(reader.stimulus, names))
            if len(rows) > config.max_training_trials:
                generator = np.random.default_rng(drawing.random_state)
                self.notes.append(f"{config.max_training_trials} of {len(rows)} training trials")
                rows = np.sort(generator.permutation(rows)[: config.max_training_trials])
            check_fit(reader.stimulus[rows], self.test_stimuli)
            self.stimuli = reader.stimulus[rows]
            self.train = _with_time(reader.read(rows))
        if not len(rows) or not np.isfinite(self.train).all():
            raise InputError(
                "training trials cannot be fitted", where=str(inputs.trials),
                found=f"{len(rows)} trials, {(~np.isfinite(self.train)).sum()} values not finite",
                expected="finite responses to pictures that have features",
            )  # fmt: skip
        order = {name: row for row, name in enumerate(names)}
        self.targets = targets[[order[name] for name in self.stimuli]]
        self.groups = _concepts(inputs.split, self.stimuli)

    def score(self) -> None:
        """Fit the whole window, read the test trials once, and score everything."""
        from afterimage.evaluation.time_resolved import Decoding, make_windows

        whole = _whole_window(self.times_s, self.has_time)
        averages, decoded = self._decode(whole)
        self._repetitions(decoded, whole)
        if not self.has_time:
            return
        names = np.unique(self.test_stimuli)
        data = Decoding(
            self.train, self.targets, self.stimuli, averages, names, list(self.gallery_names),
            self.gallery, self.times_s,
        )  # fmt: skip
        kinds: tuple[tuple[Kind, float], ...] = (
            ("sliding", self.config.bin_s),
            ("growing", self.config.step_s),
        )
        for kind, bin_s in kinds:
            windows = make_windows(self.times_s, self.config.window_s, self.config.step_s, kind)
            self._windows(data, kind, windows, bin_s)
        if self.config.generalisation:
            self._generalise(data)

    def _decode(self, whole: Window) -> tuple[np.ndarray, np.ndarray]:
        """Mean response of each test picture, and features decoded from each test trial."""
        from afterimage.evaluation.time_resolved import n_samples, unit_scale, window_inputs
        from afterimage.evaluation.window_ridge import fit_ridge, folds_by_group

        scale = unit_scale(self.train)
        n_per_bin = n_samples(self.config.step_s, self.times_s)
        folds = folds_by_group(self.groups, self.config.n_folds, self.drawing.random_state)
        model: LinearMap = fit_ridge(
            window_inputs(self.train, whole, scale, n_per_bin),
            self.targets, folds, self.config.alphas,
        )  # fmt: skip
        names, image = np.unique(self.test_stimuli, return_inverse=True)
        sums = np.zeros((len(names), *self.train.shape[1:]))
        decoded = np.empty((len(self.test_rows), self.targets.shape[1]), np.float32)
        with open_reader(self.inputs.trials) as reader:
            for start in range(0, len(self.test_rows), N_TRIALS_BATCH):
                part = slice(start, start + N_TRIALS_BATCH)
                trials = _with_time(reader.read(self.test_rows[part]))
                for place, trial in zip(image[part].tolist(), trials, strict=True):
                    sums[place] += trial
                decoded[part] = model.predict(window_inputs(trials, whole, scale, n_per_bin))
        counts = np.bincount(image)[:, None, None]
        return (sums / counts).astype(np.float32), decoded

    def _repetitions(self, decoded: np.ndarray, whole: Window) -> None:
        from afterimage.evaluation.repetitions import repetition_curve, repetition_rows

        result: RepetitionCurve = repetition_curve(
            decoded, self.test_stimuli, list(self.gallery_names), self.gallery,
            self.targets.mean(axis=0, dtype=np.float64), k_values=self.config.k_values,
            n_draws=self.config.n_draws, resampling=self.drawing,
        )  # fmt: skip
        window = (whole.start_s, whole.end_s) if self.has_time else None
        self.rows += repetition_rows(
            result, subject=self.subject, label=self.label, decoder=self._words(), window_s=window
        )
        self.coordinates |= {"metric": list(result.curves), "k": list(result.k)}
        for name, field in FIELDS.items():
            if name != "p_corrected":
                values = [[getattr(one, field)[0] for one in c] for c in result.curves.values()]
                self.arrays[f"repetitions_{name}"] = (("metric", "k"), values)
        expected = [result.expected[name] for name in result.curves]
        self.arrays["repetitions_expected"] = (("metric", "k"), expected)
        self.arrays["repetitions_n"] = (("k",), list(result.n))

    def _windows(self, data: Decoding, kind: str, windows: Sequence[Window], bin_s: float) -> None:
        from afterimage.evaluation.time_resolved import window_curves, window_rows

        curves = window_curves(
            data, windows, bin_s=bin_s, alphas=self.config.alphas, n_folds=self.config.n_folds,
            concepts=self.groups, resampling=self.drawing,
        )  # fmt: skip
        self.rows += window_rows(
            curves, windows, subject=self.subject, label=self.label, analysis=kind,
            n_gallery=len(self.gallery), decoder=self._words(),
        )  # fmt: skip
        for name, field in FIELDS.items():
            values = [getattr(curve, field) for curve in curves.values()]
            self.arrays[f"{kind}_{name}"] = (("metric", kind), values)
        self.coordinates[kind] = np.arange(len(windows))
        self.arrays[f"{kind}_start_s"] = ((kind,), [one.start_s for one in windows])
        self.arrays[f"{kind}_end_s"] = ((kind,), [one.end_s for one in windows])
        if kind == "sliding":
            self._alarm(curves, windows)
            self._peaks(curves, windows)

    def _alarm(self, curves: Mapping[str, Curve], windows: Sequence[Window]) -> None:
        from afterimage.evaluation.time_summary import alarm_row, leak_alarm

        alarms: list[LeakAlarm] = []
        for curve in curves.values():
            alarm = leak_alarm(curve, windows, self.drawing)
            if alarm is None:
                self.notes.append("no window ends before the onset: no leak alarm")
                return
            alarms.append(alarm)
            self.rows.append(
                alarm_row(alarm, curve, subject=self.subject, label=self.label,
                          n_gallery=len(self.gallery))
            )  # fmt: skip
        for name, field in (("value", "value"), ("ci_low", "low"), ("ci_high", "high"),
                            ("chance", "chance")):  # fmt: skip
            values = [getattr(alarm, field) for alarm in alarms]
            self.arrays[f"prestimulus_{name}"] = (("metric",), values)
        self.arrays["prestimulus_rings"] = (("metric",), [int(alarm.rings) for alarm in alarms])

    def _peaks(self, curves: Mapping[str, Curve], windows: Sequence[Window]) -> None:
        from afterimage.evaluation.time_summary import peak_latency, peak_row

        peaks = [peak_latency(curve, windows, self.drawing) for curve in curves.values()]
        for curve, peak in zip(curves.values(), peaks, strict=True):
            self.rows.append(
                peak_row(peak, curve, windows, subject=self.subject, label=self.label,
                         n_gallery=len(self.gallery))
            )  # fmt: skip
        for column, name in enumerate(("_s", "_ci_low_s", "_ci_high_s")):
            values = [peak[column] for peak in peaks]
            self.arrays[f"peak_latency{name}"] = (("metric",), values)

    def _generalise(self, data: Decoding) -> None:
        from afterimage.evaluation.generalisation import temporal_generalisation

        result = temporal_generalisation(
            data, bin_s=self.config.step_s, alphas=self.config.alphas,
            n_folds=self.config.n_folds, concepts=self.groups, resampling=self.drawing,
        )  # fmt: skip
        times = {"train_time_s": result.times_s, "test_time_s": result.times_s}
        self.coordinates |= times
        for name in ("value", "p_corrected"):
            values = [result.matrix(metric, name) for metric in result.curves]
            self.arrays[f"generalisation_{name}"] = (("metric", *times), values)
        curves = result.curves.values()
        chance = [float(curve.chance.mean()) for curve in curves]
        self.arrays["generalisation_chance"] = (("metric",), chance)
        threshold = [curve.threshold for curve in curves]
        self.arrays["generalisation_threshold"] = (("metric",), threshold)

    def _words(self) -> str:
        return f"ridge to {self.block}, penalty by folds of the training images"

    def dataset(self) -> Any:
        """All arrays, as the head of this module names them."""
        import xarray

        attributes = {
            "subject": self.subject,
            "block": self.block,
            "n_gallery": len(self.gallery),
            "n_training_trials": len(self.stimuli),
            "n_test_trials": len(self.test_rows),
            "has_time": int(self.has_time),
            "notes": "; ".join(self.notes),
        }
        variables = {name: (dims, np.asarray(v)) for name, (dims, v) in self.arrays.items()}
        return xarray.Dataset(variables, coords=self.coordinates, attrs=attributes)


def _block(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one feature block: stimuli and (n_stimuli, n_features)."""
    blocks = block_shapes(path)
    if name not in blocks:
        raise ConfigError(
            "the feature block to tell pictures apart is not there", where=str(path),
            found=name, expected=", ".join(sorted(blocks)),
            fix="set evaluate_time: block to one of the encoders of extract_features",
        )  # fmt: skip
    names, values = read_blocks(path, names=[name])
    return names, values[name]


def _concepts(split: Path, stimuli: np.ndarray) -> np.ndarray:
    """Group of each trial that no fold may cut: its concept where there are any, else its image."""
    rows = {row["stimulus_id"]: row for row in read_tsv(split)}
    concepts = np.array([rows.get(name, {}).get("concept") or name for name in stimuli.tolist()])
    # One concept alone leaves nothing to hold out.
    return concepts if len(np.unique(concepts)) > 1 else stimuli


def _with_time(responses: np.ndarray) -> np.ndarray:
    return responses if responses.ndim == 3 else responses[:, :, None]


def _whole_window(times_s: np.ndarray, has_time: bool) -> Window:
    """From the onset to the last sample; all there is without a time axis."""
    from afterimage.evaluation.time_resolved import Window

    first = int(np.searchsorted(times_s, -1e-9)) if has_time else 0
    first = first if first < len(times_s) else 0
    end = float(times_s[-1]) + (float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0)
    return Window(float(times_s[first]), round(end, 6), slice(first, len(times_s)))
