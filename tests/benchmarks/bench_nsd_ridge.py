"""Seconds and memory of ridge regression at the size of NSD: 15,724 voxels to 257 x 768 targets.

    python tests/benchmarks/bench_nsd_ridge.py [--images N ...] [--targets N ...] [--decoders NAME ...]

Responses and features are random, on disk; features are read, and coefficients kept, by columns, as
the stage does it. Every case runs in a process of its own, whose peak memory is measured. From the
cases the time at full size is worked out: seconds = a x (operations of the decompositions) + b x
(operations of the targets), see `operations`. ``--full`` runs the full size itself, ``--moment`` the
decomposition of all trials of `ridge` alone, of which a fit has six: the most memory it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

N_VOXELS = int(os.environ.get("N_VOXELS", 15_724))  # fewer to see whether `memory_model` holds
N_IMAGES, N_TARGETS = 9_000, 257 * 768


def run_case(decoder: str, n_images: int, n_targets: int, n_repeats: int) -> dict[str, float]:
    """Fit one decoder and predict a few patterns, in this process."""
    from afterimage.decoding.registry import DECODERS
    from afterimage.decoding.streams import Targets
    from afterimage.io.arrays import block_writer, open_blocks

    rng = np.random.default_rng(0)
    names = [f"nsd-{i:05d}" for i in range(n_images)]
    order = np.repeat(np.arange(n_images), n_repeats)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        home = Path(folder)
        rows = np.lib.format.open_memmap(
            home / "responses.npy", "w+", np.float32, (len(order), N_VOXELS)
        )
        mixing = rng.standard_normal((32, N_VOXELS), dtype=np.float32)
        hidden = rng.standard_normal((n_images, 32), dtype=np.float32)
        for start in range(0, len(order), 512):
            part = order[start : start + 512]
            noise = rng.standard_normal((len(part), N_VOXELS), dtype=np.float32)
            rows[start : start + 512] = hidden[part] @ mixing / 6 + noise
        loadings = rng.standard_normal((32, n_targets), dtype=np.float32)

        def chunks():  # type: ignore[no-untyped-def]
            for start in range(0, n_images, 64):
                part = hidden[start : start + 64] @ loadings
                yield part + 4 * rng.standard_normal(part.shape, dtype=np.float32)

        with block_writer(home / "features.nc") as writer:
            writer.group("", names)
            writer.write("", "tokens", chunks(), (n_targets,), {})

        def allocate(name: str, shape: tuple[int, ...]) -> np.ndarray:
            return np.lib.format.open_memmap(
                home / f"{name.replace('/', '-')}.npy", "w+", np.float32, shape
            )

        settings = DECODERS.settings(decoder)()
        responses = np.load(home / "responses.npy", mmap_mode="r")
        wall, cpu = time.perf_counter(), time.process_time()
        with open_blocks(home / "features.nc") as blocks, Watch() as watch:
            block = blocks["tokens"]
            features = {"tokens": Targets(block.columns, order, n_targets)}
            model = DECODERS.get(decoder)(settings)
            model.fit(responses, features, np.array(names)[order], allocate=allocate)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        r = float(np.mean(model.cross_validation_["tokens"]["r"]))
        found = model.predict(np.asarray(responses[:8]))["tokens"]
        assert found.shape == (8, n_targets) and np.isfinite(found).all()
        # pages of files that are mapped count as resident too, but the system takes them back
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return {
            "wall_s": wall, "cpu_s": cpu, "peak_gb": peak, "own_gb": watch.most_gb, "r": r,
        }  # fmt: skip


def run_moment(n_images: int, n_blocks: int, n_repeats: int) -> dict[str, float]:
    """Decompose all trials as the last step of a fit of `ridge` does, in this process."""
    from afterimage.decoding.ridge import RidgeDecoder, RidgeSettings

    rng = np.random.default_rng(0)
    order = np.repeat(np.arange(n_images), n_repeats)
    hidden = rng.standard_normal((n_images, 32), dtype=np.float32)
    mixing = rng.standard_normal((32, N_VOXELS), dtype=np.float32)
    responses = np.empty((len(order), N_VOXELS), np.float32)
    for start in range(0, len(order), 512):
        part = order[start : start + 512]
        noise = rng.standard_normal((len(part), N_VOXELS), dtype=np.float32)
        responses[start : start + 512] = hidden[part] @ mixing / 6 + noise
    gram = hidden.astype(np.float64) @ hidden.T
    grams = {f"block{number}": gram.copy() for number in range(n_blocks)}
    wall, cpu = time.perf_counter(), time.process_time()
    with Watch() as watch:
        rows = np.arange(len(order))
        _, axes = RidgeDecoder(RidgeSettings())._regression(responses, rows, grams, order)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert np.isfinite(axes.axes).all()
    return {"wall_s": wall, "cpu_s": cpu, "own_gb": watch.most_gb, "n_axes": axes.axes.shape[1]}


def through_axes(n: int, u: int, n_trials: int, n_targets: int) -> bool:
    """Whether `ridge` predicts left-out trials through the axes, or as weights of stimuli."""
    r, seen, asked = min(0.8 * n_trials, u), 0.8 * n, 9 * 0.2 * n_trials
    return bool(asked * seen * (n_targets + r) >= n_targets * r * (seen + asked))


def operations(decoder: str, n: float, u: float, n_targets: int) -> tuple[float, float]:
    """Floating-point operations of the decompositions, and of one target, for n averaged images."""
    sizes = [0.8 * n] * 5 + [n]  # folds, and the whole
    if decoder == "ridge":
        # weights of units; kernel and axes; the eigendecomposition; of targets: 9 penalties, and
        # one again, the inner products, the coefficients
        once = sum(2 * m**2 * u + 2 / 3 * m**3 + 3 * m**2 * u + 9 * m**3 for m in sizes)
        each = 5 * 10 * 2 * 0.16 * n**2 + 4 * n**2 + 2 * n * u
        if through_axes(int(n), int(u), int(n), n_targets):
            return once, each + 5 * 2 * 0.64 * n**2
        return once + 5 * 9 * 2 * 0.2 * 0.64 * n**3, each
    once = sum(2 * m**2 * u + m**3 / 3 for m in sizes)
    once += 5 * 0.2 * n * (2 * 0.8 * n * u + 2 * 0.64 * n**2) + 2 * n**3 + 2 * n**2 * u
    return once, 2 * n**2


def memory_model(n: int, u: int, decoder: str, n_trials: int, n_targets: int) -> float:
    """Most memory in GB that is not a mapped file, of n images shown in n_trials trials.

    The larger of two moments: the last decomposition, while the folds' are kept, and the targets.
    """
    r, batch = min(n_trials, u), 1024 if decoder == "ridge" else 4096
    libraries, responses = 0.15e9, 4 * n_trials * u
    targets = 8 * batch * (u * (decoder == "ridge") + 3 * n + 3 * n_trials)
    if decoder == "ridge":
        axes, dual = min(0.8 * n_trials, u), n_trials <= u
        folds = 5 * 4 * axes * (0.2 * n_trials + 0.8 * n)
        if not through_axes(n, u, n_trials, n_targets):
            folds = 0  # weights of stimuli, which lie on disk
        # in double: kernel of the stimuli and what is made of it; products, and twice as much to
        # work in; then the axes
        weigh = 4 * 8 * n * n + 3 * 8 * 4096 * n
        products = responses + 8 * r * (r + 2 * 2048)
        turn = (responses if dual else 4 * n * u) + 24 * r * r
        made = (responses + 4 * u * r if dual else 4 * r * r) + 8 * r * r + 12 * r * n
        whole = 4 * r * ((u if dual else r) + n)
        last = max(weigh, products, turn, made, whole + targets)
        return (libraries + responses + folds + 8 * n * n + last) / 1e9
    folds = 5 * 4 * 0.2 * n_trials * n
    # products, a copy that is factorised, the right side and what is solved for
    last = 2 * responses + 8 * (2 * r * r + n_trials * n) + 12 * u * n
    return (libraries + folds + max(last, 4 * u * n + targets)) / 1e9


class Watch:
    """Most memory that is not a mapped file, looked at twenty times a second."""

    def __enter__(self) -> Watch:
        self.most_gb, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            kilobytes = next(line.split()[1] for line in lines if line.startswith("RssAnon"))
            self.most_gb = max(self.most_gb, float(kilobytes) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="*", type=int, default=[600, 1200])
    parser.add_argument("--targets", nargs="*", type=int, default=[1024, 3072])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--decoders", nargs="*", default=["ridge", "brain_diffuser"])
    parser.add_argument("--full", action="store_true", help="run 9000 images and all targets")
    parser.add_argument(
        "--moment", action="store_true", help="only the decomposition of all trials"
    )
    parser.add_argument("--blocks", type=int, default=1, help="feature blocks, of --moment")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        name, *numbers = asked.case
        print(json.dumps(run_case(name, *map(int, numbers))))
        return
    if asked.moment:
        for n in asked.images:
            got = run_moment(n, asked.blocks, asked.repeats)
            # no targets, whose features alone decide how much of the folds is kept in memory
            model = memory_model(n, N_VOXELS, "ridge", n * asked.repeats, N_TARGETS)
            model += 8 * n * n * (asked.blocks - 1) / 1e9
            print(
                f"ridge, {n} images x {asked.repeats}: {got['n_axes']} axes of all trials in "
                f"{got['wall_s']:.0f} s ({got['cpu_s']:.0f} CPU s), own memory {got['own_gb']:.2f} GB "
                f"(by the model {model:.2f})"
            )
        return
    images, targets = asked.images, asked.targets
    if asked.full:
        images, targets = [N_IMAGES], [N_TARGETS]
    for decoder in asked.decoders:
        rows, found = [], []
        for n in images:
            for t in targets:
                case = [decoder, str(n), str(t), str(asked.repeats)]
                command = [sys.executable, __file__, "--case", *case]
                text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                got = json.loads(text.splitlines()[-1])
                once, each = operations(decoder, n, N_VOXELS, t)
                rows.append([once, t * each])
                found.append(got["cpu_s"])
                model = memory_model(n, N_VOXELS, decoder, n * asked.repeats, t)
                print(
                    f"{decoder}, {n} images x {asked.repeats}, {t} targets: {got['wall_s']:.0f} s "
                    f"({got['cpu_s']:.0f} CPU s), own memory at most {got['own_gb']:.2f} GB (by the model "
                    f"{model:.2f}; with mapped files {got['peak_gb']:.2f}), left-out r {got['r']:.3f}",
                    flush=True,
                )
        if len(rows) < 3 or asked.full:
            continue
        a, b = np.linalg.lstsq(np.array(rows), np.array(found), rcond=None)[0]
        worst = np.abs(np.array(rows) @ [a, b] / np.array(found) - 1).max()
        once, each = operations(decoder, N_IMAGES, N_VOXELS, N_TARGETS)
        sizes = [
            memory_model(N_IMAGES, N_VOXELS, decoder, repeats * N_IMAGES, N_TARGETS)
            for repeats in (1, 3)
        ]
        full = a * once + b * N_TARGETS * each
        print(
            f"{decoder} at {N_IMAGES} images, {N_VOXELS} voxels, {N_TARGETS} targets: "
            f"{full / 3600:.1f} CPU h ({once:.1e} and {N_TARGETS * each:.1e} operations at "
            f"{1e-9 / a:.0f} and {1e-9 / b:.0f} GFLOP/s; cases within {worst:.0%}); "
            f"memory {sizes[0]:.1f} GB averaged, {sizes[1]:.1f} GB single trials; "
            f"model on disk {4 * N_TARGETS * (N_VOXELS if decoder == 'ridge' else N_IMAGES) / 1e9:.1f} GB"
        )


if __name__ == "__main__":
    main()
