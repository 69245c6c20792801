"""Stable unCLIP: noise on the embedding, and the steps that are left out for the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.generator_example import material, predictions, stack, tiny_method

from afterimage.reconstruction.stable_unclip import StableUnclip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generator")


KIND = "stable_unclip"


def test_noise_on_the_embedding_changes_the_picture_but_not_its_seed(root: Path) -> None:
    known = predictions(KIND)
    clean, noisy = (
        tiny_method(root, KIND, noise_level=level).reconstruct(known, material(KIND))
        for level in (0, 300)
    )
    assert np.abs(stack(clean) - stack(noisy)).max() > 0
    assert [d["seed"] for d in clean[1]] == [d["seed"] for d in noisy[1]]


@pytest.mark.parametrize(("strength", "n_run"), [(1.0, 8), (0.5, 4), (0.25, 2)])
def test_strength_says_how_many_steps_are_run(root: Path, strength: float, n_run: int) -> None:
    method = tiny_method(root, KIND, strength=strength, n_steps=8)
    assert isinstance(method, StableUnclip)
    method.reconstruct(predictions(KIND), material(KIND))
    steps = method._pipeline.scheduler.timesteps
    assert len(steps) == n_run
    whole = type(method._pipeline.scheduler).from_config(method._pipeline.scheduler.config)
    whole.set_timesteps(8)
    assert steps.tolist() == whole.timesteps[8 - n_run :].tolist()  # the last, least noisy ones
