"""Pictures made under a depth map have that depth: r of .5 with it, and none with another one's.

Brain Captioning's check of its generator (Ferrante et al. 2023, arXiv:2305.11560). Only trained weights
can pass it; they are given as a folder with ``pipeline`` (Stable Diffusion), ``controlnet`` (for depth)
and ``depth_model`` (such as dpt-hybrid-midas), named in AFTERIMAGE_DEPTH_MODELS.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from afterimage.features.git import Git, GitSettings
from afterimage.features.vae import Vae, VaeSettings
from afterimage.networks.depth import DepthEstimator
from afterimage.reconstruction.depth_guided import DepthGuided, DepthGuidedSettings
from afterimage.reconstruction.registry import Material
from afterimage.simulate.stimuli import draw_stimuli

HOME = os.environ.get("AFTERIMAGE_DEPTH_MODELS", "")
N, SIDE = 12, 64


def scenes(n: int, seed: int) -> np.ndarray:
    """Inverse depth (n, SIDE, SIDE), 0..1: a floor that comes nearer below, with balls on it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    maps = []
    for _ in range(n):
        depth = 0.45 * np.clip((y - 0.4) / 0.6, 0, 1)
        for _ in range(2):
            (cx, cy), radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.12, 0.28)
            height = np.sqrt(np.clip(1 - ((x - cx) ** 2 + (y - cy) ** 2) / radius**2, 0, None))
            depth = np.where(height > 0, np.maximum(depth, 0.5 + 0.5 * height), depth)
        maps.append(depth)
    return np.asarray(maps, np.float32)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not HOME, reason="needs trained weights: AFTERIMAGE_DEPTH_MODELS is not set")
def test_depth_of_the_pictures_is_the_depth_asked_for() -> None:
    import torch

    home, device = Path(HOME), "cuda" if torch.cuda.is_available() else "cpu"
    asked = scenes(N, 3)
    images, _, _ = draw_stimuli(N, 5)
    predicted = {
        "git": Git(GitSettings()).encode(list(images)),
        "vae": Vae(VaeSettings()).encode(list(images)), "depth": asked,
    }  # fmt: skip
    settings = DepthGuidedSettings(
        pipeline=str(home / "pipeline"), controlnet=str(home / "controlnet"), depth="depth",
        strength=1.0, depth_scale=1.0, n_steps=20, size_px=512 if device == "cuda" else 256,
    )  # fmt: skip
    material = Material(
        keys=[f"scene-{i}" for i in range(N)], random_state=0,
        shapes={name: block.shape[1:] for name, block in predicted.items()}, training={},
        training_image=lambda index: images[index], embed={},
    )  # fmt: skip
    pictures, _ = DepthGuided(settings, device).reconstruct(predicted, material)
    found = DepthEstimator(home / "depth_model", device).estimate(pictures, SIDE)
    r = np.corrcoef(found.reshape(N, -1), asked.reshape(N, -1))[:N, N:]
    own, others = np.diag(r), r[~np.eye(N, dtype=bool)]
    print(f"r with the depth asked for {own.mean():.3f}, with another one {others.mean():.3f}")
    assert own.mean() >= 0.5
    assert own.mean() - others.mean() > 0.1
