"""Seconds an image and memory of every generator at its true size, with random weights, on a GPU.

    python tests/benchmarks/bench_generators.py [--kinds NAME ...] [--batch N] [--images N]

Speed does not depend on the values of weights. Every generator is written once as bfloat16 into a
temporary folder (FLUX needs 24 GB of disk) and read back from there by the method itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.generator_example import TRUE, TRUE_SHAPES, write

from afterimage.reconstruction.registry import RECONSTRUCTIONS, Material


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="*", default=list(TRUE))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--memory", default="auto")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "no CUDA device here: the true architectures are timed on a GPU only; nothing was run"
        )
        return
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bfloat16, batch {asked.batch}"
    )
    for kind in asked.kinds:
        with tempfile.TemporaryDirectory() as name:
            # weights are drawn on the device: billions of normal numbers take minutes on a CPU
            torch.set_default_device("cuda")
            torch.set_default_dtype(torch.bfloat16)
            settings = write(Path(name), kind, tiny=False)
            torch.set_default_device("cpu")
            torch.set_default_dtype(torch.float32)
            torch.cuda.empty_cache()
            measure(kind, settings, asked)


def measure(kind: str, folders: dict[str, str], asked: argparse.Namespace) -> None:
    """Load one generator, paint one batch to warm up, then time and report."""
    import torch

    shape = TRUE_SHAPES[kind]
    values = {
        **folders, "embedding": "clip", "latents": "vae", "batch_size": asked.batch,
        "memory": asked.memory,
    }  # fmt: skip
    method = RECONSTRUCTIONS.get(kind)(RECONSTRUCTIONS.settings(kind)(**values), "cuda")
    settings = method._settings
    rng = np.random.default_rng(0)

    def paint(n: int) -> float:
        predicted = {
            "clip": rng.standard_normal((n, int(np.prod(shape)))).astype(np.float32),
            "vae": rng.standard_normal((n, 8 * 8 * 8)).astype(np.float32),
        }
        material = Material(
            keys=[str(i) for i in range(n)], random_state=0,
            shapes={"clip": shape, "vae": (8, 8, 8)}, training={},
            training_image=lambda _: np.zeros((8, 8, 3), np.uint8),
            embed={"clip": lambda images: np.ones((len(images), int(np.prod(shape))), np.float32)},
        )  # fmt: skip
        torch.cuda.synchronize()
        start = time.perf_counter()
        images, _ = method.reconstruct(predicted, material)
        torch.cuda.synchronize()
        assert len(images) == n
        return time.perf_counter() - start

    loading = paint(asked.batch)
    torch.cuda.reset_peak_memory_stats()
    seconds = paint(asked.images) / asked.images
    peak = torch.cuda.max_memory_allocated() / 1e9
    steps = int(settings.n_steps * settings.strength)
    print(
        f"{kind}: {seconds:.2f} s an image ({settings.size_px} px, {steps} of {settings.n_steps} "
        f"steps, guidance {settings.guidance_scale:g}, memory {method._placement}), "
        f"peak {peak:.1f} GB; first batch with loading {loading:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    if importlib.util.find_spec("diffusers") is None:
        sys.exit("diffusers is not installed")
    main()
