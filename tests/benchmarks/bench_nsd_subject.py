"""One subject of the size of NSD from prepared responses to its report: time, memory and scores.

    python tests/benchmarks/bench_nsd_subject.py [FOLDER] [--training 9000] [--test 1000] [--voxels 15724]

Simulates a subject (drawn pictures, Gabor-energy and category-selective voxels with a known code and
single-trial noise ceilings around .45), each picture shown three times in 40 sessions, and writes it
as a folder of prepared responses, voxels by voxels. Then ``afterimage FOLDER/data FOLDER/out
participant`` runs on it, with one process a stage (AFTERIMAGE_WARM=off) so that memory can be told
apart: own memory is RssAnon, looked at four times a second; resident memory includes pages of mapped
files, which the system takes back. Scores are printed beside what is planted: the same decoders
given the noise-free responses, and the shuffled brain. ``--training 300 --test 60 --voxels 1500``
takes two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil

CONFIG = """\
random_state: 0
train_decoder:
  average_training_repeats: true
  decoders:
    bayesian: null
    ridge: {kind: ridge, n_folds: 2}
    brainDiffuser: {kind: brain_diffuser, n_folds: 2}
reconstruct:
  methods:
    linear_pixels: null
    retrieval: null
    latent_diffusion: {n_steps: 5, n_candidates: 2}
evaluate:
  encoders: [clip, pixels]
  agreement: [clip]
"""
CEILING = 0.45  # median over voxels of the correlation of one trial with its own signal
N_VOXELS_CHUNK = 1024


def write_pictures(data: Path, n_train: int, n_test: int, size_px: int, seed: int) -> np.ndarray:
    """Draw the pictures and write them with their table; return them, (n, size, size, 3)."""
    from afterimage.io.images import write_png
    from afterimage.io.tables import write_tsv
    from afterimage.simulate.stimuli import draw_stimuli

    pictures, _, captions = draw_stimuli(n_train + n_test, seed, size_px)
    rows = []
    for number, picture in enumerate(pictures):
        name = f"picture{number:05d}"
        write_png(data / "stimuli" / f"{name}.png", picture)
        split = "train" if number < n_train else "test"
        row = {"stimulus_id": name, "file": f"{name}.png", "split": split}
        rows.append(row | {"caption": captions[number]})
    write_tsv(data / "stimuli.tsv", rows, list(rows[0]))
    return pictures


def write_subject(folder: Path, asked: argparse.Namespace) -> None:
    """Write FOLDER/data, and beside it the noise-free test responses and the planted ceilings."""
    from afterimage.io.atomic import write_json
    from afterimage.io.tables import write_tsv
    from afterimage.simulate.stimuli import draw_attributes
    from afterimage.simulate.visual_brain import draw_brain, measure, respond

    data, n = folder / "data", asked.training + asked.test
    home = data / "sub-01"
    home.mkdir(parents=True)
    pictures = write_pictures(data, asked.training, asked.test, asked.picture_px, asked.seed)
    attributes = draw_attributes(n, asked.seed)
    shown = np.random.default_rng([asked.seed, 1]).permutation(np.repeat(np.arange(n), 3))
    per_run = -(-len(shown) // 480)  # 40 sessions of 12 runs
    trials = [
        {"stimulus_id": f"picture{number:05d}", "session": 1 + trial // per_run // 12,
         "run": 1 + trial // per_run % 12, "onset": 4.0 * (trial % per_run)}
        for trial, number in enumerate(shown.tolist())
    ]  # fmt: skip
    write_tsv(home / "sub-01_trials.tsv", trials, list(trials[0]))
    n_early = round(0.6 * asked.voxels)
    brain = draw_brain(n_early, asked.voxels - n_early, CEILING, asked.seed)
    responses = np.lib.format.open_memmap(
        home / "sub-01_responses.npy", "w+", np.float32, (len(shown), asked.voxels)
    )
    truth = np.lib.format.open_memmap(
        folder / "noise_free.npy", "w+", np.float32, (asked.test, asked.voxels)
    )
    for start in range(0, asked.voxels, N_VOXELS_CHUNK):
        part = slice(start, start + N_VOXELS_CHUNK)
        values = {
            field.name: getattr(brain, field.name)[part] for field in dataclasses.fields(brain)
        }
        some = dataclasses.replace(brain, **values)
        signal = respond(some, pictures, attributes)
        truth[:, part] = signal[asked.training :]
        responses[:, part] = measure(signal[shown], some.ceiling, asked.seed * 1000 + start)
    responses.flush()
    units = [{"kind": "voxel", "roi": roi} for roi in brain.roi]
    write_tsv(home / "sub-01_units.tsv", units, list(units[0]))
    np.save(folder / "ceiling.npy", brain.ceiling)
    write_json(data / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})


class Watch:
    """Most memory in GB of the processes of every stage, by what they are called."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.own: dict[str, float] = defaultdict(float)
        self.resident: dict[str, float] = defaultdict(float)
        self.together = 0.0
        self._process, self._done = psutil.Process(process.pid), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.25):
            total = 0.0
            with contextlib.suppress(psutil.Error):
                for one in [self._process, *self._process.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error, OSError, IndexError):
                        total += self._add(one)
            self.together = max(self.together, total)

    def _add(self, one: psutil.Process) -> float:
        words = one.cmdline()
        if not any("python" in word for word in words[:1]):
            return 0.0
        name = "workflow"
        if "stage" in words:
            at = words.index("stage")
            output = words[words.index("--output", at) + 2]
            name = f"{words[at + 1]} {Path(output).name.split('.')[0].removeprefix('sub-01_')}"
        lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
        sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
        own = float(sizes["RssAnon"]) / 1e6
        resident = sum(map(float, sizes.values())) / 1e6
        self.own[name] = max(self.own[name], own)
        self.resident[name] = max(self.resident[name], resident)
        return own


def run(folder: Path, cores: int, more: list[Path]) -> tuple[float, Watch]:
    """Run the command line on the folder; return seconds and the memory of the stages."""
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "afterimage", str(folder / "data"), str(folder / "out")]
    command += ["participant"]
    for file in (config, *more):
        command += ["--config", str(file)]
    command += ["--", "--cores", str(cores)]
    started = time.perf_counter()
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, "AFTERIMAGE_WARM": "off"},
        )  # fmt: skip
        watch = Watch(process)
        code = process.wait()
    watch.stop()
    if code:
        print((folder / "log.txt").read_text()[-3000:])
        raise SystemExit(code)
    return time.perf_counter() - started, watch


def tell_costs(out: Path, seconds: float, watch: Watch) -> None:
    """Print wall time, processor time and memory of every stage."""
    print(f"{'stage':<52} {'wall s':>8} {'CPU s':>8} {'own GB':>7} {'mapped too':>10}")
    for path in sorted((out / "logs" / "cost").rglob("*.json"), key=lambda p: p.stat().st_mtime):
        cost = json.loads(path.read_text())
        name = f"{path.parent.name} {path.stem.removeprefix('sub-01_')}"
        if name not in watch.own:
            name += " (before)"  # of a run that this one goes on with
        print(
            f"{name:<52} {cost['seconds']:8.1f} {cost['processor_seconds']:8.1f} "
            f"{watch.own[name]:7.2f} {watch.resident[name]:10.2f}"
        )
    print(f"whole run: {seconds:.0f} s, own memory of all processes {watch.together:.2f} GB")


def tell_scores(folder: Path) -> None:
    """Print the scores of the table, and of what is planted."""
    from afterimage.evaluation.identification import retrieval, similarity, two_way
    from afterimage.io.arrays import block_means, open_dataset, read_blocks
    from afterimage.io.tables import read_tsv
    from afterimage.stages.shared_decoders import open_decoder

    home = folder / "out" / "sub-01"
    with open_dataset(home / "sub-01_trials.nc") as trials:
        found, planted = trials["ceiling"].values, np.load(folder / "ceiling.npy")
    error = found - planted[: len(found)]
    print(
        f"noise ceilings of {len(found)} voxels: median planted {np.median(planted):.3f}, found "
        f"{np.median(found):.3f}; difference {error.mean():.4f} +- {error.std():.4f}"
    )
    rows = read_tsv(home / "evaluation" / "sub-01_metrics.tsv")
    wanted = ("pixcorr", "ssim", "twoway_clip", "twoway_gabor", "twoway", "retrieval_top1")
    for row in rows:
        known = row["metric"] in wanted or row["metric"] in ("encoding_agreement_all",)
        if known and row["value"] != "n/a":
            numbers = [
                f"{float(row[key]):.3f}" if row[key] != "n/a" else "n/a"
                for key in ("value", "ci_low", "ci_high", "chance", "ceiling")
            ]
            print(f"{row['label']:<36} {row['role']:<14} {row['metric']:<24} {' '.join(numbers)}")
    means = block_means(home / "features" / "sub-01_split-train_features.nc")
    names, blocks = read_blocks(home / "features" / "sub-01_split-test_features.nc")
    signal = np.load(folder / "noise_free.npy")
    places = np.argsort(names)  # pictures of the test set are named in the order of the signal
    for model in sorted((home / "decoding").glob("*_model.safetensors")):
        decoder, card = open_decoder(model)
        sources = {"planted, no noise": (decoder.predict(signal), names[places])}
        predictions = model.with_name(model.name.replace("_model.safetensors", "_predictions.nc"))
        for source in ("brain", "shuffled"):
            ids, values = read_blocks(predictions, source)
            sources[source] = (values, ids)
        for source, (values, ids) in sources.items():
            index = [list(names).index(name) for name in ids]
            for block in decoder.blocks:
                alike = similarity(values[block], blocks[block], training_mean=means[block])
                print(
                    f"{card['decoder']:<14} {block:<8} {source:<18} two-way "
                    f"{two_way(alike, index).mean():.4f}, first of {len(names)} "
                    f"{retrieval(alike, 1, index).mean():.4f}"
                )


def main() -> None:
    """Write, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="kept; default: a temporary one")
    parser.add_argument("--training", type=int, default=9000, help="pictures, each shown 3 times")
    parser.add_argument("--test", type=int, default=1000, help="pictures, each shown 3 times")
    parser.add_argument("--voxels", type=int, default=15_724)
    parser.add_argument("--picture-px", type=int, default=64, help="side of a picture")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--config", nargs="*", type=Path, default=[], help="settings after ours")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(dir=".")))
        folder = folder.resolve()
        started, cpu = time.perf_counter(), time.process_time()
        if not (folder / "data").is_dir():
            write_subject(folder, asked)
            print(
                f"simulated in {time.perf_counter() - started:.0f} s "
                f"({time.process_time() - cpu:.0f} CPU s)",
                flush=True,
            )
        seconds, watch = run(folder, asked.cores, asked.config)
        tell_costs(folder / "out", seconds, watch)
        tell_scores(folder)


if __name__ == "__main__":
    main()
