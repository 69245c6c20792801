"""A small subject of EEG, trained on causal trials as the workflow does it, for tests of live decoding."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from afterimage.bids.index import index_dataset
from afterimage.bids.sidecars import split_paths
from afterimage.io.images import write_png
from afterimage.io.tables import write_tsv
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.stages.runner import run_stage

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "recording_example.py")))

RATE_HZ, N_PICTURES, DURATION_S = 250.0, 20, 50.0
CALIBRATION_S = 15.0
CLEAN = {
    "causal": True, "highpass_hz": 0.5, "resample_hz": 125.0, "calibration_s": CALIBRATION_S,
    "bad_segments": "given", "ransac": False,
}  # fmt: skip


def write_study(root: Path) -> None:
    """Write two runs: a response for each picture, a flat electrode, and an amplifier's offset."""
    pictures = draw_stimuli(N_PICTURES, 0)[0]
    for number, picture in enumerate(pictures):
        write_png(root / "stimuli" / f"p{number:02d}.png", picture)
    rng = np.random.default_rng(0)
    seen = np.column_stack([pictures.mean((1, 2)), pictures.std((1, 2))])  # what a brain shows
    seen = (seen - seen.mean(0)) / seen.std(0)
    patterns = 6e-6 * seen @ rng.normal(size=(seen.shape[1], len(made.NAMES)))
    for run in (1, 2):
        eeg = made.make_eeg(run, DURATION_S, RATE_HZ, blinks=False)
        # Onsets lie on samples of the recording, as those of a trigger do.
        onsets = np.round(np.arange(1.2, DURATION_S - 1.5, 0.55) * RATE_HZ).astype(int)
        shown = np.resize(rng.permutation(N_PICTURES), len(onsets))
        data = eeg.raw._data
        for onset, picture in zip(onsets, shown, strict=True):
            data[:, onset + 25 : onset + 75] += patterns[picture][:, None]
        data += 1e-2
        data[3] = 1e-2  # F3 is not connected
        file = made.write_bids(root, eeg.raw, f"0{run}", onsets / RATE_HZ)
        rows = [
            {"onset": repr(float(onset / RATE_HZ)), "duration": "0.4", "trial_type": "picture",
             "stim_file": f"p{picture:02d}.png"}
            for onset, picture in zip(onsets, shown, strict=True)
        ]  # fmt: skip
        events = file.with_name(file.name.replace("_eeg.vhdr", "_events.tsv"))
        write_tsv(events, rows, list(rows[0]))


def train(root: Path, out: Path, decoders: dict[str, Any], **cleaning: Any) -> None:
    """Run the stages that a live session needs, with their records beside what they write."""
    out.mkdir()
    (out / "dataset_description.json").write_text(json.dumps({"Name": "out"}))
    (out / "code").mkdir()
    (out / "code" / "workflow.yaml").write_text(yaml.safe_dump({"bids_dir": str(root)}))
    folder, dataset = out / "sub-01", str(root / "dataset_description.json")
    stem = str(folder / "sub-01")

    def run(name: str, inputs: dict[str, Any], outputs: dict[str, str], **config: Any) -> None:
        listed = {k: v if isinstance(v, list) else [v] for k, v in inputs.items()}
        run_stage(name, listed, {k: [v] for k, v in outputs.items()}, {"config": config})

    series, events = [], []
    for row in index_dataset(root):
        own = f"{folder}/eeg/{Path(row['recording']).name.removesuffix('_eeg.vhdr')}"
        series.append(f"{own}_desc-clean_series.nc")
        events.append(f"{own}_desc-clean_events.tsv")
        inputs = {
            "recording": str(root / row["recording"]), "events": str(root / row["events"]),
            "sidecars": list(map(str, split_paths(row["sidecar"], root))),
        }  # fmt: skip
        outputs = {"series": series[-1], "events": events[-1]}
        outputs["quality"] = f"{own}_desc-meeg_quality.nc"
        run("clean_meeg", inputs, outputs, **(CLEAN | cleaning))
    outputs = {"trials": f"{stem}_trials.nc", "split": f"{stem}_split.tsv"}
    outputs |= {"quality": f"{stem}_quality.json", "maps": f"{stem}_responses.nc"}
    inputs = {"series": series, "events": events, "dataset": dataset}
    run("epoch_meeg", inputs, outputs, tmin_s=-0.1, tmax_s=0.5, baseline_s=[-0.1, 0.0])
    files = {}
    encoders = {"clip": {"kind": "vision"}, "vae": {"kind": "vae"}, "pixels": None, "gabor": None}
    for split in ("train", "test"):
        files[split] = f"{folder}/features/sub-01_split-{split}_features.nc"
        inputs = {"split": outputs["split"], "dataset": dataset}
        wanted = {name: one for name, one in encoders.items() if one}
        run("extract_features", inputs, {"features": files[split]}, split=split, encoders=wanted)
    for name, settings in decoders.items():
        own = f"{folder}/decoding/sub-01_desc-{name}"
        models = {"model": f"{own}_model.safetensors", "predictions": f"{own}_predictions.nc"}
        inputs = {"trials": outputs["trials"], "features": files["train"]}
        run("train_decoder", inputs, models, decoders={name: settings})
        inputs = {"predictions": models["predictions"], "features": files["train"]}
        inputs |= {"split": outputs["split"], "dataset": dataset}
        own = f"{folder}/recon/sub-01_desc-{name}"
        images = {"images": f"{own}_recon.nc", "candidates": f"{own}_candidates.tsv"}
        method = {"kind": "latent_diffusion", "n_steps": 2, "n_candidates": 1}
        run("reconstruct", inputs, images, methods={"latent_diffusion": method})
