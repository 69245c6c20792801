"""The trials of one subject while they are made: noise fitted, responses described, written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.io.trials import Cuts, open_reader, write_lazy_trials
from afterimage.preprocess.meeg.whitening import Whitening, fit_whitening
from afterimage.preprocess.reliability import Reliability, over_times
from afterimage.preprocess.responses import repeat_index

if TYPE_CHECKING:
    import xarray

#: Trials are read this many at a time.
N_TRIALS_BATCH = 256
#: Training trials from which noise and ceilings are estimated, at most.
N_TRIALS_ESTIMATE = 8000
#: A session with fewer training trials is whitened by the noise of all sessions.
MIN_TRIALS_SESSION = 20
#: More conditions than this are pictures, of which no evoked responses are drawn.
MAX_CONDITIONS = 20


@dataclass
class SubjectEpochs:
    """Places of all trials, and what is known of them.

    Attributes
    ----------
    cuts : Cuts
    trials, units : dict of array
        Coordinates of the trials file.
    times_s : array of shape (n_times,)
    response_units : str
    scale : array of shape (n_units,)
        From SI units to those in which evoked responses are shown.
    fits : dict
        `Whitening` by session, ``all`` for all sessions; empty where nothing is whitened.
    """

    cuts: Cuts
    trials: dict[str, np.ndarray]
    units: dict[str, np.ndarray]
    times_s: np.ndarray
    response_units: str
    scale: np.ndarray
    fits: dict[str, Whitening] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the trials, with as much done to them as is known now."""
        attributes = {
            "subject": str(self.trials["subject"][0]),
            "response_units": self.response_units,
            "position_units": "m",
            "whitened": int(bool(self.fits)),
        }
        write_lazy_trials(path, self.cuts, self.trials, self.units, self.times_s, attributes)

    def fit(self, path: Path, config: Any, notes: list[str]) -> None:
        """Fit the noise on training trials of each session, or of all, and whiten by it.

        Parameters
        ----------
        path : Path
            The trials, written before anything was fitted.
        config
            Config of `epoch_meeg`.
        notes : list of str
            Added to.
        """
        training = self.trials["split"] == "train"
        sessions = self.trials["session"].astype(str)
        names = ["all"]
        if config.whiten_by == "session" and len(np.unique(sessions)) > 1:
            names = [str(name) for name in np.unique(sessions)]
        index = np.zeros(len(training), dtype=np.int64)
        few = []
        with open_reader(path) as reader:
            for name in names:
                own = np.full(len(training), True) if name == "all" else sessions == name
                rows = self._sample(np.flatnonzero(own & training), config.random_state or 0)
                if name != "all" and len(rows) < MIN_TRIALS_SESSION:
                    few.append(name)
                    continue
                index[own] = len(self.fits)
                self.fits[name] = self._fit(reader, rows, config)
            if few:
                rows = self._sample(np.flatnonzero(training), config.random_state or 0)
                index[np.isin(sessions, few)] = len(self.fits)
                self.fits["all"] = self._fit(reader, rows, config)
                notes.append(
                    f"sessions with few training trials are whitened by all: {', '.join(few)}"
                )
        # The reader gave scaled signals: the scale is part of the matrix from here on.
        matrices = [fit.matrix * self.scale for fit in self.fits.values()]
        self.cuts = replace(
            self.cuts, whitening=np.array(matrices, dtype=np.float32), whitening_index=index
        )
        self.response_units = "standard deviations of the noise"
        ranks = sorted({fit.rank for fit in self.fits.values()})
        if ranks[0] < len(self.scale):
            notes.append(
                f"{len(self.scale)} channels span {' or '.join(map(str, ranks))} dimensions: "
                "whitened within them"
            )

    def _sample(self, rows: np.ndarray, random_state: int) -> np.ndarray:
        """Choose training trials for an estimate, whole stimuli first, ordered by stimulus."""
        stimuli = self.trials["stimulus"][rows]
        if len(rows) > N_TRIALS_ESTIMATE:
            names = np.unique(stimuli)
            n_repeats = max(2, N_TRIALS_ESTIMATE // len(names))
            shuffled = np.random.default_rng(random_state).permutation(names)
            chosen = set(shuffled[: max(1, N_TRIALS_ESTIMATE // n_repeats)].tolist())
            keep = np.array([name in chosen for name in stimuli.tolist()])
            keep &= repeat_index(stimuli) < n_repeats
            rows, stimuli = rows[keep], stimuli[keep]
        return np.asarray(rows[np.argsort(stimuli, kind="stable")])

    def _fit(self, reader: Any, rows: np.ndarray, config: Any) -> Whitening:
        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for part in _whole_stimuli(rows, reader.stimulus):
                yield reader.read(part), reader.stimulus[part]

        return fit_whitening(batches, self.units["kind"], config.shrinkage)

    def describe(self, path: Path, notes: list[str]) -> xarray.Dataset:
        """Estimate ceilings of the final responses and evoked responses of the unwhitened ones.

        Parameters
        ----------
        path : Path
            The trials, written before anything was fitted; written again with what was.
        notes : list of str
            Added to.

        Returns
        -------
        Dataset
            ``evoked`` (condition, unit, time), ``gfp`` (kind, time), ``ceiling`` and ``split_half``
            (unit, time), ``eigenvalues`` and ``eigenvalues_after`` (fit, component).
        """
        import xarray

        rows = self._sample(np.flatnonzero(self.trials["split"] == "train"), 0)
        conditions, evoked = self._evoked(path, rows)
        self.write(path)
        sums = Reliability((len(self.scale), len(self.times_s)))
        with open_reader(path) as reader:
            for start in range(0, len(rows), N_TRIALS_BATCH):
                part = rows[start : start + N_TRIALS_BATCH]
                sums.update(reader.read(part), reader.stimulus[part])
        ceiling = sums.noise_ceiling()
        self.units["ceiling"] = over_times(ceiling, self.times_s)
        if np.isnan(ceiling).all():
            notes.append("no training stimulus is repeated: there are no noise ceilings")
        kinds = np.unique(self.units["kind"].astype(str))
        gfp = [evoked[0][self.units["kind"] == kind].std(axis=0) for kind in kinds]
        names = ("name", "kind", "x", "y", "z")
        fits = list(self.fits.values())
        variables: dict[str, Any] = {
            "evoked": (("condition", "unit", "time"), evoked.astype(np.float32)),
            "gfp": (("kind_of_unit", "time"), np.array(gfp, dtype=np.float32)),
            "ceiling": (("unit", "time"), ceiling),
            "split_half": (("unit", "time"), sums.split_half()),
        }
        for name in ("eigenvalues", "eigenvalues_after") if fits else ():
            values = np.array([getattr(fit, name) for fit in fits])
            variables[name] = (("fit", "component"), values)
        coordinates: dict[str, Any] = {
            "condition": conditions, "time": self.times_s, "kind_of_unit": kinds,
            "fit": list(self.fits),
            **{name: ("unit", self.units[name]) for name in names if name in self.units},
        }  # fmt: skip
        units = ", ".join(f"{kind}: {SHOWN_IN.get(kind, 'SI')}" for kind in kinds)
        return xarray.Dataset(variables, coordinates, {
            "evoked_units": units,
            "n_trials_described": len(rows),
            "shrinkage": float(np.mean([fit.shrinkage for fit in fits])) if fits else np.nan,
            "rank": min(fit.rank for fit in fits) if fits else len(self.scale),
        })  # fmt: skip

    def _evoked(self, path: Path, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Average training trials, all and by condition; (n_conditions, n_units, n_times)."""
        kinds = self.trials["trial_type"][rows].astype(str)
        names = np.unique(kinds)
        if not 1 < len(names) <= MAX_CONDITIONS:
            names = np.empty(0, dtype=str)
        total = np.zeros((len(names) + 1, len(self.scale), len(self.times_s)))
        order = np.sort(rows)  # in the order of the recording, samples are read once
        kinds = self.trials["trial_type"][order].astype(str)
        with open_reader(path) as reader:
            for start in range(0, len(order), N_TRIALS_BATCH):
                batch = slice(start, start + N_TRIALS_BATCH)
                epochs = reader.read(order[batch])
                total[0] += epochs.sum(axis=0, dtype=np.float64)
                for place, name in enumerate(names, start=1):
                    total[place] += epochs[kinds[batch] == name].sum(axis=0, dtype=np.float64)
        counts = np.array([len(order), *((kinds == name).sum() for name in names)])
        return ["all", *names.tolist()], total / counts[:, None, None]


#: Units in which evoked responses of each kind are shown.
SHOWN_IN = {"eeg": "uV", "mag": "fT", "grad": "fT/cm"}


def _whole_stimuli(rows: np.ndarray, stimulus: np.ndarray) -> Iterator[np.ndarray]:
    """Cut rows ordered by stimulus into batches, between stimuli where they are not too many."""
    start = 0
    while start < len(rows):
        stop = min(start + N_TRIALS_BATCH, len(rows))
        if stop < len(rows):
            last = stop
            while last > start and stimulus[rows[last]] == stimulus[rows[last - 1]]:
                last -= 1
            stop = last if last > start else stop
        yield rows[start:stop]
        start = stop
