"""A miniature in the layout of NSD through its reader and the whole workflow, with both wide ridges."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from scipy.io import savemat

from afterimage.stages import import_dataset

SHAPE, N_SHARED, N_OTHERS, SIDE_PX = (6, 5, 5), 50, 200, 16
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"


def write_miniature(source: Path) -> None:
    """Write one session of one subject whose voxels answer to the pictures it saw."""
    rng = np.random.default_rng(0)
    shared = rng.choice(73000, 1000, replace=False) + 1
    others = rng.permutation(np.setdiff1d(np.arange(1, 73001), shared))
    images = np.stack([np.r_[shared, others[9000 * (s % 8) :][:9000]] for s in range(8)])
    places = np.r_[1 : N_SHARED + 1, 1001 : 1001 + N_OTHERS]  # three showings each
    session = rng.permutation(np.repeat(places, 3))
    ordering = np.r_[session, rng.integers(1, 10001, 30000 - len(session))]
    pattern = np.zeros((40, 12, 75))
    for number in range(40):
        pattern[number].ravel()[np.sort(rng.choice(900, 750, replace=False))] = 1
    path = source / "nsddata/experiments/nsd/nsd_expdesign.mat"
    path.parent.mkdir(parents=True)
    savemat(path, {
        "masterordering": ordering[None].astype(float), "subjectim": images.astype(float),
        "sharedix": shared[None].astype(float), "stimpattern": pattern,
    })  # fmt: skip
    seen = images[0, session - 1] - 1
    coarse = {number: rng.integers(0, 256, (4, 4, 3)).astype(np.uint8) for number in set(seen)}
    stimuli = source / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    stimuli.parent.mkdir(parents=True)
    shape = (SIDE_PX, SIDE_PX, 3)
    with h5py.File(stimuli, "w") as file:
        brick = file.create_dataset("imgBrick", (73000, *shape), np.uint8, chunks=(1, *shape))
        for number, small in coarse.items():
            brick[number] = np.kron(small, np.ones((SIDE_PX // 4, SIDE_PX // 4, 1), np.uint8))
    pixels = np.stack([coarse[number].ravel() for number in seen]) / 255 - 0.5  # (750, 48)
    drive = pixels @ rng.normal(size=(48, int(np.prod(SHAPE)))) / 2
    betas = drive + rng.normal(size=drive.shape)  # percent signal change
    values = np.rint(300 * betas).astype(np.int16).T.reshape(*SHAPE, 750)
    (source / BETAS).mkdir(parents=True)
    with h5py.File(source / BETAS / "betas_session01.hdf5", "w") as file:
        file.create_dataset("betas", data=values.transpose(3, 2, 1, 0))
    roi = source / "nsddata/ppdata/subj01/func1pt8mm/roi"
    roi.mkdir(parents=True)
    general = np.ones(SHAPE)
    general[0, 0] = -1  # outside of the cortex
    nibabel.save(
        nibabel.Nifti1Image(general.astype(np.float32), np.eye(4)), roi / "nsdgeneral.nii.gz"
    )


@pytest.mark.slow
def test_published_files_become_a_report(tmp_path: Path, tools: Any) -> None:
    write_miniature(tmp_path / "nsd")
    dataset, out = tmp_path / "dataset", tmp_path / "out"
    import_dataset.import_dataset(
        tmp_path / "nsd", dataset, import_dataset.Config(), lambda words: None
    )
    values = {
        **tools.light,
        "train_decoder": {
            "average_training_repeats": True,
            "decoders": {
                "bayesian": None,
                "brainDiffuser": {"kind": "brain_diffuser", "n_targets_batch": 100},
                "transductive": {"kind": "brain_diffuser", "rescale": "transductive"},
            },
        },
    }
    config = tools.write_config(tmp_path / "config.yaml", values)
    done = tools.run(dataset, out, "participant", "--config", config, "--cores", "1")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with (out / "sub-01" / "evaluation" / "sub-01_metrics.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for decoder in ("ridge", "brainDiffuser", "transductive"):
        (row,) = [
            row for row in rows
            if row["metric"] == "pixcorr" and row["label"] == f"{decoder}LinearPixels"
        ]  # fmt: skip
        print(decoder, row["value"], row["n"], row["protocol"])
        assert float(row["value"]) > 0.3
        assert int(row["n"]) == N_SHARED
        assert ("transductive" in row["protocol"]) == (decoder == "transductive")
    text = (out / "sub-01.html").read_text(encoding="utf-8")
    assert "Transductive: predictions of some decoders" in text
