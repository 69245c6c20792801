"""Raw scans through the command line: bad runs are named and left out, the rest is finished."""

from __future__ import annotations

import gzip
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest

from afterimage.io.arrays import open_dataset
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.stages import simulate_bold

SMALL = {
    "n_subjects": 1,
    "missing_run": False,
    "n_training_images": 24,
    "n_training_repeats": 2,
    "repeated_share": 1.0,
    "n_test_images": 6,
    "n_test_repeats": 2,
    "trials_per_run": 20,
    "n_early_units": 60,
    "n_selective_units": 24,
    "shape_voxels": (16, 18, 10),
}


@dataclass(frozen=True)
class Defect:
    """What is done to a subject, and what must be said of it.

    Attributes
    ----------
    damage : callable
        Takes the folder of the subject and that of the dataset.
    said : tuple of str
        Words of the message or note.
    n_runs : int
        Runs that are used all the same, of three.
    error : bool
        Whether the run counts as failed (exit code 65), or only a note is made.
    """

    damage: Callable[[Path, Path], None]
    said: tuple[str, ...]
    n_runs: int = 2
    error: bool = True


def bold(subject: Path, run: str = "ses-01_task-pictures_run-01") -> Path:
    return next(subject.rglob(f"*{run}_bold.nii.gz"))


def events(subject: Path, run: str = "ses-01_task-pictures_run-01") -> Path:
    return next(subject.rglob(f"*{run}_events.tsv"))


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], **header: object) -> None:
    image = nibabel.load(path)
    data = change(np.asarray(image.dataobj, dtype=np.float32))
    affine = header.get("affine", image.affine)
    new = nibabel.Nifti1Image(data, affine)
    zooms = (*image.header.get_zooms()[:3], header.get("t_r", image.header.get_zooms()[3]))
    new.header.set_zooms(zooms[: data.ndim])
    new.header.set_xyzt_units("mm", "sec")
    path.unlink()
    nibabel.save(new, path)


def truncate(subject: Path, dataset: Path) -> None:
    path = bold(subject)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_finite(subject: Path, dataset: Path) -> None:
    def change(data: np.ndarray) -> np.ndarray:
        data[:, :, :, ::3] = np.nan
        return data

    rewrite(bold(subject), change)


def other_t_r(subject: Path, dataset: Path) -> None:
    rewrite(bold(subject), lambda data: data, t_r=1.5)


def one_volume(subject: Path, dataset: Path) -> None:
    rewrite(bold(subject), lambda data: data[..., :1])


def shifted_affine(subject: Path, dataset: Path) -> None:
    affine = nibabel.load(bold(subject)).affine.copy()
    affine[:3, 3] += (6.0, -4.0, 3.0)
    rewrite(bold(subject, "ses-02_task-pictures_run-01"), lambda data: data, affine=affine)


def twice(subject: Path, dataset: Path) -> None:
    path = bold(subject)
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def no_events(subject: Path, dataset: Path) -> None:
    events(subject).unlink()


def late_events(subject: Path, dataset: Path) -> None:
    path = events(subject)
    rows = read_tsv(path)
    rows[-1]["onset"] = rows[-2]["onset"].split(".")[0] + "00"
    write_tsv(path, rows, list(rows[0]))


def all_late(subject: Path, dataset: Path) -> None:
    path = events(subject)
    rows = [row | {"onset": str(float(row["onset"]) + 5000)} for row in read_tsv(path)]
    write_tsv(path, rows, list(rows[0]))


def missing_condition(subject: Path, dataset: Path) -> None:
    for number, path in enumerate(sorted(subject.rglob("*_events.tsv"))):
        kinds = ("face", "house") if number else ("face", "face")
        rows = [row | {"trial_type": kinds[index % 2]} for index, row in enumerate(read_tsv(path))]
        write_tsv(path, rows, list(rows[0]))


def other_mask(subject: Path, dataset: Path) -> None:
    path = next((dataset / "derivatives" / "rois" / subject.name).rglob("*label-V1_mask.nii.gz"))
    image = nibabel.load(path)
    data = np.asarray(image.dataobj)[:-2]
    path.unlink()
    nibabel.save(nibabel.Nifti1Image(data, image.affine), path)


def localizer(subject: Path, dataset: Path) -> None:
    """Give the subject a run of another task, which shows no pictures."""
    source = bold(subject)
    target = Path(str(source).replace("task-pictures", "task-localizer"))
    shutil.copy(source, target)
    sidecar = json.loads((dataset / "task-pictures_bold.json").read_text())
    sidecar["TaskName"] = "localizer"
    target.with_name(target.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    rows = read_tsv(events(subject))
    path = Path(str(events(subject)).replace("task-pictures", "task-localizer"))
    write_tsv(path, rows, ["onset", "duration", "trial_type"])


def short_confounds(subject: Path, dataset: Path) -> None:
    """Give the subject fMRIPrep output, one of its tables cut short."""
    root = dataset / "derivatives" / "fmriprep"
    root.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": "fMRIPrep", "BIDSVersion": "1.10.0", "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.0.0"}],
    }  # fmt: skip
    (root / "dataset_description.json").write_text(json.dumps(description))
    for number, path in enumerate(sorted(subject.rglob("*_bold.nii.gz"))):
        folder = root / path.parent.relative_to(dataset)
        folder.mkdir(parents=True, exist_ok=True)
        stem = path.name.replace("_bold.nii.gz", "")
        shutil.copy(path, folder / f"{stem}_space-T1w_desc-preproc_bold.nii.gz")
        image = nibabel.load(path)
        mean = np.asarray(image.dataobj, dtype=np.float32).mean(axis=3)
        mask = (mean > 0.4 * np.percentile(mean, 95)).astype(np.uint8)
        mask_path = folder / f"{stem}_space-T1w_desc-brain_mask.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask, image.affine), mask_path)
        rows = [
            {f"{kind}_{axis}": "0.01" for kind in ("trans", "rot") for axis in "xyz"}
            for _ in range(image.shape[3] - 3 * (number == 0))
        ]
        write_tsv(folder / f"{stem}_desc-confounds_timeseries.tsv", rows, list(rows[0]))


DEFECTS = {
    "truncated": Defect(truncate, ("cannot be read", "run-01_bold.nii.gz")),
    "nan": Defect(not_finite, ("finite", "run-01_bold.nii.gz")),
    "tr": Defect(other_t_r, ("1.5 s in the header", "2 s in the sidecar")),
    "onevolume": Defect(one_volume, ("one volume", "run-01_bold.nii.gz")),
    "duplicate": Defect(twice, ("run-01_bold.nii",)),
    "noevents": Defect(no_events, ("events", "run-01_bold.nii.gz")),
    "late": Defect(late_events, ("after the last volume",), n_runs=3, error=False),
    "alllate": Defect(all_late, ("after the last volume", "run-01_events.tsv")),
    "condition": Defect(missing_condition, ("no trial of house",), n_runs=3, error=False),
    "mask": Defect(other_mask, ("another shape", "label-V1_mask.nii.gz"), n_runs=3),
    "affine": Defect(shifted_affine, ("orientation|affine|grid|place",), n_runs=3, error=False),
    "localizer": Defect(localizer, ("shows no picture and was left out",), n_runs=3, error=False),
    "confounds": Defect(short_confounds, ("another length than its run", "run-01")),
}


def copy_subject(dataset: Path, label: str) -> Path:
    """Copy sub-01 and its regions under another label."""
    for root in (dataset, dataset / "derivatives" / "rois"):
        for path in sorted((root / "sub-01").rglob("*")):
            if path.is_file():
                name = path.relative_to(root).as_posix().replace("sub-01", f"sub-{label}")
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / name)
    return dataset / f"sub-{label}"


@pytest.fixture(scope="module")
def finished(tools, tmp_path_factory):
    """One run over a healthy subject and one subject a defect."""
    folder = tmp_path_factory.mktemp("raw")
    dataset = folder / "dataset"
    simulate_bold.run(
        simulate_bold.Inputs(),
        simulate_bold.Outputs(description=dataset / "dataset_description.json"),
        simulate_bold.Config(**SMALL),
    )
    for label, defect in DEFECTS.items():
        defect.damage(copy_subject(dataset, label), dataset)
    before = tools.contents(dataset)
    done = tools.run(dataset, folder / "out", "participant", "--until", "fit_responses")
    assert tools.contents(dataset) == before  # nothing is written into the dataset
    return folder / "out", done


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


def test_all_subjects_are_finished(finished) -> None:
    out, done = finished
    assert done.returncode == 65, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for label in ("01", *DEFECTS):
        assert (out / f"sub-{label}" / f"sub-{label}_trials.nc").is_file(), label


@pytest.mark.parametrize("label", DEFECTS)
def test_defect_is_named_and_its_run_left_out(finished, label: str) -> None:
    out, done = finished
    defect = DEFECTS[label]
    quality = json.loads((out / f"sub-{label}" / f"sub-{label}_quality.json").read_text())
    assert quality["n_runs"] == defect.n_runs
    if defect.error:
        blocks = re.split(r"\n(?=sub-\w+, \w+:\n)", done.stderr)
        found = " ".join(block for block in blocks if block.startswith(f"sub-{label}, "))
        report = plain((out / f"sub-{label}.html").read_text(encoding="utf-8"))
        for words in defect.said:
            assert re.search(words, report), words
    else:
        runs = sorted((out / f"sub-{label}").rglob("*_desc-bold_quality.nc"))
        notes = []
        for path in runs:
            with open_dataset(path) as dataset:
                notes.append(str(dataset.attrs["notes"]))
        found = " ".join([*quality["notes"], *notes])
        assert f"sub-{label}, " not in done.stderr
    for words in defect.said:
        assert re.search(words, found), (words, found)


def test_healthy_subject_has_trials_regions_and_ceilings(finished) -> None:
    out, _ = finished
    with open_dataset(out / "sub-01" / "sub-01_trials.nc") as trials:
        assert trials.sizes["trial"] == 60
        assert set(trials["split"].values.astype(str)) == {"train", "test"}
        assert {"V1", "V2", "V4"} <= set(trials["roi"].values.astype(str))
        assert np.isfinite(trials["ceiling"].values).all()
        assert trials.attrs["response_units"] == "percent signal change"
        n_units = trials.sizes["unit"]
        i, j, k = (trials[name].values for name in "ijk")
        responses = trials["responses"].values
    images = sorted((out / "sub-01").glob("*_stat-effect_statmap.nii.gz"))
    assert len(images) == 2  # one a session
    betas = np.concatenate([np.asarray(nibabel.load(path).dataobj) for path in images], axis=3)
    assert np.allclose(betas[i, j, k].T, responses, atol=1e-5)
    assert np.count_nonzero(np.abs(betas).sum(axis=3)) == n_units
    ceiling = nibabel.load(out / "sub-01" / "sub-01_stat-noiseceiling_statmap.nii.gz")
    raw = nibabel.load(next((out.parent / "dataset" / "sub-01").rglob("*_bold.nii.gz")))
    assert np.allclose(ceiling.affine, raw.affine)


def test_output_is_valid_bids(finished) -> None:
    """What BIDS has no name for stands in .bidsignore; the rest passes the official validator."""
    out, _ = finished
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.is_file():
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run(
        [str(validator), str(out), "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert not [issue for issue in issues if issue["severity"] == "error"]


def test_second_run_does_nothing_and_a_mended_run_is_taken_up(finished, tools) -> None:
    out, _ = finished
    dataset = out.parent / "dataset"
    arguments = (dataset, out, "participant", "--participant-label", "01", "truncated")
    again = tools.run(*arguments, "--until", "fit_responses")
    assert "nothing to be done" in again.stdout, again.stdout + again.stderr
    shutil.copy(bold(dataset / "sub-01"), bold(dataset / "sub-truncated"))
    mended = tools.run(*arguments, "--until", "fit_responses")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    found = json.loads((out / "sub-truncated" / "sub-truncated_quality.json").read_text())
    assert found["n_runs"] == 3
