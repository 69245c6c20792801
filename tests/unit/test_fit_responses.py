"""Scans of held-out pictures never reach the responses, choices or scales of training trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from afterimage.io.arrays import open_dataset
from afterimage.io.images import write_png
from afterimage.io.series import series_writer
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.preprocess.fmri.hrf import canonical_hrf
from afterimage.preprocess.fmri.masks import voxel_coordinates
from afterimage.stages import fit_responses

T_R_S, N_VOLUMES, SHAPE = 2.0, 96, (5, 5, 3)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
#: Pictures of each run: those of one category are shown in runs of their own.
RUNS = (("red0", "red1", "red2"), ("red3", "red4", "red5"), ("red0", "red2", "red4"),
        ("blue0", "blue1"), ("red1", "red3", "red5"))  # fmt: skip
HELD_OUT_RUN = 3
COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}
CHOICES = ("ceiling", "ncsnr", "split_half", "fraction", "hrf_peak_s")


class Study:
    """One subject with five short runs of 75 voxels, a third of which respond to pictures."""

    def __init__(self, root: Path) -> None:
        self.root = root
        rng = np.random.default_rng(0)
        (root / "dataset_description.json").write_text("{}")
        rows = []
        for name in sorted({name for run in RUNS for name in run}):
            kind = name[:-1]
            picture = np.clip(rng.normal(COLOURS[kind], 9, (32, 32, 3)), 0, 255)
            write_png(root / "stimuli" / f"{name}.png", picture.astype(np.uint8))
            rows.append({"stimulus_id": name, "file": f"{name}.png", "category": kind})
        write_tsv(root / "stimuli" / "stimuli.tsv", rows, ["stimulus_id", "file", "category"])
        image = nib.Nifti1Image(np.full(SHAPE, 1000, np.float32), AFFINE)
        nib.save(image, root / "reference.nii.gz")
        nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), root / "mask.nii.gz")
        n_voxels = int(np.prod(SHAPE))
        self.amplitudes = {row["stimulus_id"]: rng.normal(3, 1.5, n_voxels) for row in rows}
        self.responding = np.arange(n_voxels) % 3 == 0
        for number, names in enumerate(RUNS):
            onsets = 6.0 + 15.0 * np.arange(12)
            shown = rng.permutation(np.resize(names, len(onsets)))
            events = [
                {"onset": onset, "duration": 2.0, "trial_type": "picture", "stim_file": f"{s}.png"}
                for onset, s in zip(onsets, shown, strict=True)
            ]
            write_tsv(self.path(number, "events.tsv"), events, list(events[0]))
            confounds = [{"trans_x": repr(float(x))} for x in rng.normal(size=N_VOLUMES)]
            write_tsv(self.path(number, "desc-confounds_timeseries.tsv"), confounds, ["trans_x"])
            self.write(number, self.signal(number, onsets, shown))

    def path(self, run: int, ending: str) -> Path:
        folder = self.root / "sub-01" / "func"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"sub-01_ses-1_task-view_run-{run + 1:02d}_{ending}"

    def signal(self, run: int, onsets: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Responses to what was shown, noise that all voxels share, and noise of their own."""
        rng = np.random.default_rng(10 + run)
        library, times = canonical_hrf(), T_R_S * np.arange(N_VOLUMES)
        lag = np.arange(library.kernels.shape[1]) * library.dt_s
        values = 1000 + 6 * rng.normal(size=(N_VOLUMES, len(self.responding)))
        values += 5 * rng.normal(size=(N_VOLUMES, 1))
        for onset, name in zip(onsets, shown, strict=True):
            course = np.interp(times - onset, lag, library.kernels[0], 0, 0)
            course /= library.kernels[0].max()
            values += 4 * course[:, None] * self.amplitudes[str(name)] * self.responding
        return values

    def write(self, run: int, values: np.ndarray) -> None:
        attributes = {
            "t_r_s": T_R_S, "start_time_s": 0.0, "source": "raw",
            "affine": AFFINE.ravel(), "shape": np.array(SHAPE),
        }  # fmt: skip
        units = voxel_coordinates(np.ones(SHAPE, bool), AFFINE)
        path = self.path(run, "desc-clean_series.nc")
        with series_writer(path, N_VOLUMES, units, attributes) as writer:
            writer.write(0, values.astype(np.float32))

    def disturb(self, run: int) -> None:
        """Replace what a run measured: another signal, steps, and noise that is ten times larger."""
        rng = np.random.default_rng(99)
        values = 900 + 60 * rng.normal(size=(N_VOLUMES, len(self.responding)))
        values[N_VOLUMES // 2 :] += 200 * rng.normal(size=len(self.responding))
        values += 40 * np.sin(np.arange(N_VOLUMES) / 3)[:, None]
        self.write(run, values)

    def fit(self, **config: Any) -> dict[str, Any]:
        stem = self.root / "sub-01" / "sub-01"
        outputs = fit_responses.Outputs(
            *(Path(f"{stem}_{name}") for name in
              ("trials.nc", "split.tsv", "quality.json", "desc-responses_quality.nc"))
        )  # fmt: skip
        inputs = fit_responses.Inputs(
            *(
                tuple(self.path(run, ending) for run in range(len(RUNS)))
                for ending in ("desc-clean_series.nc", "desc-confounds_timeseries.tsv", "events.tsv")
            ),
            reference=self.root / "reference.nii.gz", mask=self.root / "mask.nii.gz", rois=(),
            dataset=self.root / "dataset_description.json",
            stimuli_table=self.root / "stimuli" / "stimuli.tsv",
        )  # fmt: skip
        options = {"units": "reliable", "min_units": 5, "test_fraction": 0.25, "random_state": 0}
        settings = fit_responses.Config(write_betas=False, **(options | config))
        fit_responses.run(inputs, outputs, settings)
        with open_dataset(outputs.trials) as trials:
            found = {name: trials[name].values for name in trials.variables}
        return found | {
            "split_rows": read_tsv(outputs.split),
            "summary": json.loads(outputs.quality.read_text())["estimator_summary"],
        }


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


@pytest.mark.parametrize(
    ("held_out", "estimator"),
    [
        ({"kind": "categories"}, "ridge_glm"),
        ({"kind": "clusters", "n_clusters": 2}, "ridge_glm"),
        ({"kind": "categories"}, "lss"),
        ({"kind": "categories"}, "lsa"),
        ({"kind": "categories"}, "block_average"),
    ],
)
def test_noise_of_held_out_runs_reaches_no_training_trial(
    study: Study, held_out: dict[str, Any], estimator: str
) -> None:
    config = {"held_out": held_out, "estimator": {"kind": estimator}, "scale": "session"}
    before = study.fit(**config)
    names, split = before["stimulus"].astype(str), before["split"].astype(str)
    kinds = {(name[:-1], part) for name, part in zip(names, split, strict=True)}
    assert kinds == {("red", "train"), ("blue", "test")}
    assert {row["held_out"] for row in before["split_rows"]} == {held_out["kind"]}
    assert set(before["run"].astype(str)[split == "test"]) == {f"{HELD_OUT_RUN + 1:02d}"}
    assert (before["ceiling"] > 0.3).any()  # there is something to find

    study.disturb(HELD_OUT_RUN)
    after = study.fit(**config)
    assert after["responses"].shape == before["responses"].shape  # the same voxels are kept
    for name in ("column", "stimulus", "split", *(set(CHOICES) & set(before))):
        assert (
            before[name].tobytes() == after[name].tobytes() or (before[name] == after[name]).all()
        )
    train = split == "train"
    assert before["responses"][train].tobytes() == after["responses"][train].tobytes()
    assert np.abs(before["responses"][~train] - after["responses"][~train]).max() > 0.5
    assert before["summary"] == after["summary"]
    assert before["split_rows"] == after["split_rows"]


def test_noise_of_a_training_run_does_reach_the_others(study: Study) -> None:
    """The same disturbance elsewhere is seen: the test above could fail."""
    config = {"held_out": {"kind": "categories"}, "units": "brain"}
    before = study.fit(**config)
    study.disturb(0)
    after = study.fit(**config)
    other = before["run"].astype(str) == "02"
    assert before["responses"][other].tobytes() != after["responses"][other].tobytes()
    assert before["fraction"].tobytes() != after["fraction"].tobytes()
