"""What the report reads of recordings: responses, and the fits of the decoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.entities import run_prefix
from afterimage.io.tables import Row, read_json
from afterimage.io.trials import open_trials
from afterimage.reports import model
from afterimage.reports.provenance import Exclusion
from afterimage.reports.recordings import Recordings
from afterimage.reports.scans import ScanQuality

#: Starts of the names of tasks in which nothing is shown.
RESTING = ("rest", "eyesopen", "eyesclosed")
#: Trials and units shown in the figures of responses, at most.
SHOWN = 2000
#: Values of trials with a time axis that are held at once, at most.
MAX_VALUES = 25_000_000


def exclusions(
    quality: dict[str, Any] | None,
    scans: ScanQuality | Recordings | None,
    rows: Sequence[Row] = (),
) -> list[Exclusion]:
    """List the units, trials and runs that were left out, and why; ``rows`` are of the index."""
    excluded = [
        Exclusion(f"run {run.name}", run.reason.partition(";")[0])
        for run in (scans.skipped if scans else ())
    ]
    # A task without events may be a mistake; rest is none.
    excluded += [
        Exclusion(
            f"run {run_prefix(row['bold'] if row['bold'] != 'n/a' else row['recording'])}",
            "no file of events applies to it, so that it has connectivity and no trials",
        )
        for row in rows
        if row.get("source") in ("raw", "fmriprep")
        and (row.get("events"), row.get("problem")) == ("n/a", "n/a")
        and not row.get("task", "").lower().startswith(RESTING)
    ]
    for key, why in (
        ("units_constant", "constant over all trials"),
        ("units_never_finite", "no finite value in any trial"),
    ):
        if quality and quality.get(key):
            excluded.append(Exclusion("units", why, len(quality[key])))
    if quality and "estimator" in quality:
        unusable = len(quality["units_constant"])
        if others := quality["n_units"] - quality["n_units_kept"] - unusable:
            why = "of the brain mask, in no region or not reliable over repeats"
            excluded.append(Exclusion("voxels", why, others))
    if quality and quality["n_trials"].get("val"):
        excluded.append(
            Exclusion("trials", "in the validation split, not used", quality["n_trials"]["val"])
        )
    return excluded


def counts(quality: dict[str, Any] | None) -> dict[str, Any]:
    """Count units and trials of the whole recording, of which the figures may show a part."""
    if not quality:
        return {}
    found = {"n_units": quality["n_units_kept"]}
    found["n_trials"] = sum(quality["n_trials"].values())
    for split in ("train", "test"):
        found[f"n_{split}_trials"] = quality["n_trials"].get(split, 0)
        found[f"n_{split}_stimuli"] = quality["n_stimuli"].get(split, 0)
    summary = quality.get("estimator_summary", {})
    if summary.get("n_hrfs", 1) > 1:
        found["n_hrfs"] = summary["n_hrfs"]
    if summary.get("n_noise_components"):
        found["n_noise_components"] = summary["n_noise_components"]
    if summary.get("fraction_criterion", "fixed") != "fixed":
        found["fraction_criterion"] = summary["fraction_criterion"]
    return found


#: What channels of a kind are called; magnetometers and gradiometers stand side by side.
CHANNELS = {"eeg": "EEG channel", "mag": "MEG channel", "grad": "MEG channel"}


def read_responses(path: Path, quality: dict[str, Any] | None) -> model.Responses | None:
    """Read an even choice of the trials and units of a file of trials."""
    if not path.is_file():
        return None
    with open_trials(path) as dataset:
        n_trials, n_units = dataset.sizes["trial"], dataset.sizes["unit"]
        n_values = min(n_units, SHOWN) * dataset.sizes.get("time", 1)
        n_shown = min(SHOWN, max(MAX_VALUES // n_values, 50))
        # An even choice of trials and units keeps the report of a large study small and quick.
        trials = np.unique(np.linspace(0, n_trials - 1, min(n_trials, n_shown)).astype(int))
        units = np.unique(np.linspace(0, n_units - 1, min(n_units, SHOWN)).astype(int))
        part = dataset.isel(trial=trials, unit=units)
        kind = str(dataset["kind"].values[0])
        n_shown = np.unique(dataset["stimulus"].values.astype(str), return_counts=True)[1]
        return model.Responses(
            responses=np.asarray(part["responses"].values),
            stimulus=part["stimulus"].values.astype(str).tolist(),
            split=part["split"].values.astype(str).tolist(),
            roi=["" if roi == "n/a" else roi for roi in part["roi"].values.astype(str)],
            ceiling=np.asarray(part["ceiling"].values),
            unit_kind=CHANNELS.get(kind, kind),
            times_s=np.asarray(part["time"].values) if "time" in part.coords else None,
            n_dropped_units=quality["n_units"] - quality["n_units_kept"] if quality else 0,
            n_shown=n_shown.tolist(),
        )


def read_fits(folder: Path, name: str) -> list[model.BlockFit]:
    """Read the cross-validated fit of every decoder and feature block."""
    fits = []
    for path in sorted((folder / "decoding").glob(f"{name}_desc-*_model.json")):
        card = read_json(path)
        for block, summary in card["cross_validation"].items():
            values = {
                key: np.array([np.nan if v is None else v for v in summary[key]], dtype=float)
                for key in ("r", "alpha", "alphas")
                if isinstance(summary, dict) and isinstance(summary.get(key), list)
            }
            fits.append(
                model.BlockFit(
                    card["decoder"],
                    block,
                    values.get("r"),
                    values.get("alpha"),
                    values.get("alphas"),
                )
            )
    return fits
