"""Eight categories read from real raw BOLD (Haxby et al. 2001): runs to responses to accuracy.

One slice, 12 runs of 121 volumes, one block a category and run. All choices of the ridge GLM that
use labels are made without the run that is classified, which is fitted anew for each fold.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from afterimage.bids.index import index_dataset
from afterimage.io.arrays import open_dataset
from afterimage.stages import clean_bold, fit_responses, reference_bold

LATE_S = 7.0


@pytest.fixture(scope="module")
def scans(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Make reference, mask and cleaned runs, as the workflow does."""
    root = shared_data / "haxby2001-raw"
    if not root.is_dir():
        pytest.skip("the recording haxby2001-raw is absent")
    out = tmp_path_factory.mktemp("haxby")
    (out / "dataset_description.json").write_text("{}")
    rows = index_dataset(root)
    assert len(rows) == 12
    bold = tuple(root / row["bold"] for row in rows)
    masks = tuple(dict.fromkeys(root / row["mask"] for row in rows))
    reference = out / "sub-001" / "sub-001_desc-reference_boldref.nii.gz"
    mask = out / "sub-001" / "sub-001_desc-brain_mask.nii.gz"
    reference_bold.run(
        reference_bold.Inputs(bold=bold, masks=masks, boldrefs=()),
        reference_bold.Outputs(reference=reference, mask=mask),
        reference_bold.Config(),
    )
    series, confounds = [], []
    for row, file in zip(rows, bold, strict=True):
        stem = out / "sub-001" / "func" / file.name.replace("_bold.nii.gz", "")
        outputs = clean_bold.Outputs(
            series=Path(f"{stem}_desc-clean_series.nc"),
            confounds=Path(f"{stem}_desc-confounds_timeseries.tsv"),
            quality=Path(f"{stem}_desc-bold_quality.nc"),
        )
        sidecars = tuple(root / part for part in row["sidecar"].split(";"))
        inputs = clean_bold.Inputs(bold=file, sidecars=sidecars, reference=reference, mask=mask)
        clean_bold.run(inputs, outputs, clean_bold.Config())
        series.append(outputs.series)
        confounds.append(outputs.confounds)
    inputs = fit_responses.Inputs(
        series=tuple(series),
        confounds=tuple(confounds),
        events=tuple(root / row["events"] for row in rows),
        reference=reference,
        mask=mask,
        rois=(),
        dataset=root / "dataset_description.json",
    )
    return {"inputs": inputs, "out": out, "runs": [row["run"] for row in rows]}


def fit(scans: dict[str, object], **config: object) -> Path:
    """Fit the responses; return the file of trials."""
    out = scans["out"] / "sub-001"
    outputs = fit_responses.Outputs(
        trials=out / "sub-001_trials.nc",
        split=out / "sub-001_split.tsv",
        quality=out / "sub-001_quality.json",
        maps=out / "sub-001_desc-responses_quality.nc",
    )
    settings = fit_responses.Config(write_betas=False, units="brain", **config)
    fit_responses.run(scans["inputs"], outputs, settings)
    return outputs.trials


def hits(trials: Path, held_out: list[str]) -> np.ndarray:
    """Classify each trial of the held-out runs by a linear classifier fitted on the others."""
    from sklearn.svm import LinearSVC

    with open_dataset(trials) as dataset:
        patterns = dataset["responses"].values
        category = dataset["stimulus"].values.astype(str)
        run = dataset["run"].values.astype(str)
    for name in np.unique(run):  # all categories occur once a run: this uses no label
        part = patterns[run == name]
        patterns[run == name] = (part - part.mean(axis=0)) / part.std(axis=0)
    found = []
    for name in held_out:
        test = run == name
        model = LinearSVC(C=1.0, dual=True, max_iter=50_000, random_state=0)
        model.fit(patterns[~test], category[~test])
        found.append(model.predict(patterns[test]) == category[test])
    return np.array(found)  # (n_runs, n_categories)


def interval(found: np.ndarray) -> tuple[float, float, float]:
    """Mean, and its 95 % bootstrap interval over runs."""
    rng = np.random.default_rng(0)
    means = found.mean(axis=1)
    draws = rng.choice(means, (5000, len(means))).mean(axis=1)
    return found.mean(), *np.percentile(draws, (2.5, 97.5))


def test_categories_are_read_from_the_raw_runs(scans: dict[str, object]) -> None:
    runs = scans["runs"]
    accuracy = {}
    for kind in ("lsa", "lss", "block_average"):  # these use no label and make no choice
        accuracy[kind] = interval(hits(fit(scans, estimator={"kind": kind}), runs))
    nested = [
        hits(fit(scans, estimator={"kind": "ridge_glm"}, test_runs=[f"run-{run}"]), [run])[0]
        for run in runs
    ]
    accuracy["ridge_glm"] = interval(np.array(nested))
    for kind, (mean, low, high) in accuracy.items():
        print(f"{kind}: {mean:.3f} [{low:.3f}, {high:.3f}]")
    # Reference numbers of these files: .79 to .81 for block averages, .83 for a model; standard
    # error .04, chance .125.
    assert accuracy["ridge_glm"][0] >= 0.83
    assert accuracy["lsa"][0] >= 0.83
    assert accuracy["lss"][0] >= 0.79
    assert accuracy["block_average"][0] >= 0.75


def test_late_onsets_are_found(scans: dict[str, object]) -> None:
    """The labels of the source lie 7 s late for a model; the check of the onsets must say so."""
    quality = scans["out"] / "sub-001" / "sub-001_quality.json"
    shifts, peaks, ceilings = [], [], []
    for column in ("onset", "onset_labels"):
        trials = fit(scans, estimator={"kind": "lsa"}, onset_column=column)
        found = json.loads(quality.read_text())
        shifts.append(found["best_onset_shift_s"])
        ceilings.append(found["ceiling_median"])
        with open_dataset(quality.with_name("sub-001_desc-responses_quality.nc")) as maps:
            peaks.append(
                float(maps["onset_shift_s"][int(np.argmax(maps["onset_shift_r2"].values))])
            )
        accuracy = hits(trials, scans["runs"]).mean()
        print(
            column,
            shifts[-1],
            peaks[-1],
            round(ceilings[-1], 3),
            round(accuracy, 3),
            found["notes"],
        )
        assert any("late" in note for note in found["notes"]) == (column == "onset_labels")
    assert shifts[0] == 0
    assert shifts[1] <= -4  # blocks of 22.5 s: the peak is broad
    assert peaks[0] - peaks[1] == pytest.approx(LATE_S, abs=1)
    assert ceilings[0] > ceilings[1]
