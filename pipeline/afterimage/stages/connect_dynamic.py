"""Ask whether one subject's connectivity changes over time, and through which states it goes.

``_dynamic.nc``: coordinates ``recording``, ``roi`` (unit), ``window`` with ``window_recording``,
``window_start`` and ``window_state``; ``sample`` with ``sample_recording`` and ``hidden_state``
(-1: censored or left out). Variables ``mean`` and ``sd`` (recording, unit, unit_): mean correlation
over windows and its standard deviation; ``window_centre`` (state, unit, unit_) and
``hidden_correlation`` (hidden, unit, unit_); ``null_variance`` (surrogate, recording),
``null_explained`` (surrogate), ``null_occupancy`` (surrogate, state), ``variance`` (recording).
Attributes: ``width``, ``step`` (samples), ``overlap``, ``high_pass_cycles``, ``notes``.

``_states.tsv``: one row a quantity; ``chance`` columns are those of the surrogates.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.errors import AfterimageError, InputError
from afterimage.io.arrays import write_dataset
from afterimage.io.tables import write_tsv
from afterimage.settings import StageConfig
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_files import Recording, common_units, read_recordings

VERSION = 1
CITES = (
    *("hutchison2013", "leonardi2015", "allen2014", "vidaurre2017", "prichard1994"),
    *("liegeois2017", "hindriks2016"),
)
COLUMNS = (
    *("subject", "recording", "analysis", "quantity", "state", "value", "ci_low", "ci_high"),
    *("chance", "chance_low", "chance_high", "p", "n", "protocol"),
)
#: Samples of a window where the sampling rate is not known.
UNKNOWN_RATE_WIDTH = 30
log = logging.getLogger("afterimage")


class Config(StageConfig):
    """Windows, their states, hidden states, and the surrogates all are compared with."""

    enabled: bool = Field(False, description="whether dynamic connectivity is computed at all")
    window_s: float = Field(60.0, gt=0, description="length of a window, s")
    window_samples: int | None = Field(
        None, ge=10, description="length in samples instead; default: from window_s, or 30 samples "
        "where the sampling rate is not known",
    )  # fmt: skip
    overlap: float = Field(0.75, ge=0, lt=1, description="share of a window that the next repeats")
    high_pass: bool = Field(
        True, description="take out what is slower than one period a window first"
    )
    min_kept: float = Field(
        0.5, gt=0, le=1, description="share of a window not censored, at least"
    )
    n_states: tuple[int, ...] = Field(
        (1, 2, 3, 4, 5, 6), min_length=1, description="numbers of states of windows to choose from"
    )
    n_hidden_states: tuple[int, ...] = Field(
        (1, 2, 3, 4), description="numbers of hidden states to choose from; empty: none are fitted"
    )
    n_components: int = Field(10, ge=1, description="principal components states are found in")
    n_restarts: int = Field(10, ge=1, description="starts of k-means and of the hidden model")
    n_surrogates: int = Field(99, ge=19, description="surrogates of the windows")
    n_hidden_surrogates: int = Field(19, ge=0, description="surrogates of the hidden states")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the series of one subject, of one set of regions or sensors."""

    series: tuple[Path, ...]


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    dynamic: Path
    states: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Compute windows, states and their null; recordings that are too short are left out."""
    recordings, notes = read_recordings(inputs.series)
    where = unit_of(outputs.dynamic)
    study = _Study(recordings, notes, config, threads, where)
    record_skipped("connect_dynamic", outputs.dynamic, *study.errors)
    study.windows()
    if config.n_hidden_states:
        study.hidden()
    outputs.dynamic.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(outputs.dynamic, study.dataset())
    write_tsv(outputs.states, study.rows, COLUMNS)
    for note in study.notes:
        log.info("%s: %s", where, note)


class _Study:
    """The recordings of a subject, and the rows and arrays that come out."""

    def __init__(
        self, found: list[Recording], notes: list[str], config: Config, threads: int, where: str
    ) -> None:
        from afterimage.signal.windows import high_pass_to_window, kept_in_windows

        self.config, self.threads, self.notes = config, threads, notes
        self.random_state = config.random_state or 0
        self.rows: list[dict[str, Any]] = []
        self.arrays: dict[str, Any] = {}
        self.errors: list[AfterimageError] = []
        usable: list[Recording] = []
        self.width = config.window_samples or UNKNOWN_RATE_WIDTH
        if found and config.window_samples is None:
            rate_hz = found[0].sampling_rate_hz
            if rate_hz > 0:
                self.width = max(10, round(config.window_s * rate_hz))
            else:
                notes.append(f"the sampling rate is not known: windows of {self.width} samples")
        self.step = max(1, round((1 - config.overlap) * self.width))
        self.min_kept = max(3, int(np.ceil(config.min_kept * self.width)))
        for recording in found:
            try:
                inside = kept_in_windows(recording.kept, self.width, self.step)
                if (inside >= self.min_kept).sum() < 2:
                    raise InputError(
                        "a recording has too few windows", found=f"{len(recording.kept)} samples, "
                        f"{int((~recording.kept).sum())} censored", where=recording.name,
                        expected=f"two windows with {self.min_kept} samples that are kept",
                        fix="use shorter windows (connect_dynamic.window_s)",
                    )  # fmt: skip
                usable.append(recording)
            except InputError as error:
                self.errors.append(error)
                notes.append(f"{recording.name} is left out: {error.what}")
        if not usable:
            raise self.errors[0] if self.errors else InputError(
                "a subject has no recording for dynamic connectivity", where=where,
                found="; ".join(notes)[:400] or "no recording", expected="one that can be used",
            )  # fmt: skip
        self.recordings, dropped = common_units(usable)
        if dropped:
            notes.append(f"{len(dropped)} units are not in all recordings, or do not vary")
        n_units = len(self.recordings[0].names)
        if self.width < n_units:
            notes.append(
                f"windows of {self.width} samples for {n_units} units: their matrices cannot be "
                "inverted, so only correlations are computed"
            )
        self.kept = [recording.kept for recording in self.recordings]
        self.series = [
            high_pass_to_window(r.values, self.width, r.kept) if config.high_pass else r.values
            for r in self.recordings
        ]

    def windows(self) -> None:
        """Windows, their states, and both on surrogates."""
        from afterimage.connectivity import dynamics
        from afterimage.connectivity.window_states import find_window_states, summarise_states

        config = self.config
        found = dynamics.all_windows(
            self.series, self.kept, self.width, self.step, self.min_kept, self.threads
        )
        candidates = tuple(
            k for k in config.n_states
            if 3 * k <= np.isfinite(found.correlations).all(1).sum()
        )  # fmt: skip
        states, k = None, 0
        if candidates:
            gap = int(np.ceil(self.width / self.step))
            states = find_window_states(
                found.correlations, found.groups, candidates=candidates,
                n_components=config.n_components, gap=gap, n_restarts=config.n_restarts,
                random_state=self.random_state,
            )  # fmt: skip
            # Even where one state suffices, two are compared with the surrogates.
            k = states.n_states if states.n_states > 1 else min(2, max(candidates))
        else:
            self.notes.append("too few windows for states")
        null = dynamics.surrogate_null(
            self.series, self.kept, self.width, self.step, self.min_kept, n_states=k,
            n_components=config.n_components, n_surrogates=config.n_surrogates,
            n_threads=self.threads, random_state=self.random_state,
        )  # fmt: skip
        for index, recording in enumerate(self.recordings):
            self._row(recording.name, "windows", "variance", found.variance[index],
                      null.variance[:, index], int((found.groups == index).sum()))  # fmt: skip
        self._store_windows(found, null)
        if states is None:
            return
        labels = states.labels
        if k > 1:
            tested = dynamics.cluster(found, k, config.n_components, self.random_state)
            n = int((tested.labels >= 0).sum())
            summary = summarise_states(dynamics.by_recording(tested.labels, found.groups), k)
            self._row("all", "window_states", f"explained_by_{k}", tested.explained,
                      null.explained, n)  # fmt: skip
            self._row("all", "window_states", "n_switches", summary.n_switches, null.switches, n)
            for state in range(k):
                self._row("all", "window_states", "occupancy", summary.occupancy[state],
                          null.occupancy[:, state], n, state)  # fmt: skip
                self._row("all", "window_states", "dwell", summary.dwell[state] * self.step,
                          None, n, state)  # fmt: skip
            self.arrays["null_occupancy"] = (("surrogate", "rank"), null.occupancy)
            self.arrays["null_explained"] = (("surrogate",), null.explained)
            self.arrays["explained"] = ((), tested.explained)
        self._row("all", "window_states", "n_states", states.n_states, None, len(labels))
        self.arrays["window_state"] = (("window",), labels)
        centres = [_square(centre) for centre in states.centres]
        self.arrays["window_centre"] = (("state", "unit", "unit_"), np.stack(centres))
        if states.held_out:
            self.notes.append(
                "held-out log likelihood by number of states: "
                + ", ".join(f"{n}: {v:.3f}" for n, v in states.held_out.items())
            )

    def _store_windows(self, found: Any, null: Any) -> None:
        from afterimage.signal.windows import window_starts

        starts = [window_starts(len(s), self.width, self.step) for s in self.series]
        self.arrays["window_recording"] = (("window",), found.groups)
        self.arrays["window_start"] = (("window",), np.concatenate(starts))
        for name, function, diagonal in (("mean", np.mean, 1.0), ("sd", np.std, 0.0)):
            values = []
            for index in range(len(self.recordings)):
                part = found.correlations[found.groups == index]
                part = part[np.isfinite(part).all(1)]
                edges = function(part, axis=0) if len(part) else np.full(part.shape[1], np.nan)
                values.append(_square(edges, diagonal))
            self.arrays[name] = (("recording", "unit", "unit_"), np.stack(values))
        self.arrays["variance"] = (("recording",), found.variance)
        self.arrays["null_variance"] = (("surrogate", "recording"), null.variance)

    def hidden(self) -> None:
        """Hidden states of the samples, and how much better than one state they predict."""
        from afterimage.connectivity.dynamics import hidden_state_null
        from afterimage.connectivity.hidden_states import find_hidden_states
        from afterimage.connectivity.window_states import summarise_states

        config = self.config
        series = [recording.values for recording in self.recordings]
        try:
            found = find_hidden_states(
                series, self.kept, candidates=config.n_hidden_states,
                n_components=config.n_components, n_restarts=config.n_restarts,
                random_state=self.random_state,
            )  # fmt: skip
        except InputError as error:
            self.notes.append(f"no hidden states: {error.what} ({error.found})")
            return
        k = found.n_states
        summary = summarise_states(found.labels, k)
        n = int(sum(kept.sum() for kept in self.kept))
        self._row("all", "hidden_states", "n_states", k, None, n)
        for state in range(k):
            self._row(
                "all", "hidden_states", "occupancy", summary.occupancy[state], None, n, state
            )
            self._row("all", "hidden_states", "dwell", summary.dwell[state], None, n, state)
        if config.n_hidden_surrogates:
            tested = max(2, k)
            real, null = hidden_state_null(
                series, self.kept, tested, config.n_hidden_surrogates,
                n_components=config.n_components, random_state=self.random_state,
            )  # fmt: skip
            for index, recording in enumerate(self.recordings):
                self._row(recording.name, "hidden_states", f"held_out_gain_of_{tested}",
                          real[index], null[:, index], len(series[index]))  # fmt: skip
        self.arrays["hidden_state"] = (("sample",), np.concatenate(found.labels))
        groups = np.repeat(np.arange(len(series)), [len(one) for one in series])
        self.arrays["sample_recording"] = (("sample",), groups)
        self.arrays["hidden_correlation"] = (("hidden", "unit", "unit_"), found.correlations)

    def _row(
        self,
        recording: str,
        analysis: str,
        quantity: str,
        value: float,
        null: np.ndarray | None,
        n: int,
        state: int | None = None,
    ) -> None:
        from afterimage.signal.surrogates import p_above

        row: dict[str, Any] = {
            "subject": self.recordings[0].subject, "recording": recording, "analysis": analysis,
            "quantity": quantity, "state": state, "value": float(value), "n": n,
            "protocol": f"windows of {self.width} samples, step {self.step}"
            if analysis != "hidden_states" else "principal components of the series",
        }  # fmt: skip
        if null is not None and len(null):
            low, middle, high = np.quantile(null, [0.025, 0.5, 0.975])
            row |= {"chance": middle, "chance_low": low, "chance_high": high}
            row["p"] = p_above(float(value), null)
            row["protocol"] += f"; chance: {len(null)} phase-randomised surrogates"
        self.rows.append(row)

    def dataset(self) -> Any:
        """All arrays, as the head of this module names them."""
        import xarray

        first = self.recordings[0]
        names = np.array([recording.name for recording in self.recordings], dtype=object)
        values = {
            name: (dims, np.asarray(v, np.float32) if np.asarray(v).dtype.kind == "f" else v)
            for name, (dims, v) in self.arrays.items()
        }
        return xarray.Dataset(
            values,
            coords={"recording": ("recording", names), "roi": ("unit", first.names.astype(object))},
            attrs={
                "subject": first.subject, "seg": first.seg, "width": self.width, "step": self.step,
                "overlap": 1 - self.step / self.width,
                "sampling_rate_hz": first.sampling_rate_hz,
                "high_pass_cycles": 1 / self.width if self.config.high_pass else 0.0,
                "notes": "; ".join(self.notes),
            },
        )  # fmt: skip


def _square(edges: np.ndarray, diagonal: float = 1.0) -> np.ndarray:
    """Turn the lower triangle without its diagonal into a symmetric matrix."""
    values = np.asarray(edges)
    n = int((1 + np.sqrt(1 + 8 * len(values))) / 2)
    matrix = np.full((n, n), diagonal, dtype=np.float32)
    lower = np.tril_indices(n, -1)
    matrix[lower] = values
    matrix.T[lower] = values
    return matrix
