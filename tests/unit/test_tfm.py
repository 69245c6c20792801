"""TFM-Tokenizer: what is hidden, whether it leaks, and whether the codes move the encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.tokenizer_example import rhythms

from afterimage.errors import ConfigError
from afterimage.networks.time_frequency import complement_masks
from afterimage.tokenizers.quantiser import QuantiserSettings
from afterimage.tokenizers.tfm import Tfm, TfmSettings


def tokenizer(**more: Any) -> Tfm:
    small: dict[str, Any] = {"n_steps": 4, "quantiser": QuantiserSettings(codebook_size=16)}
    made = Tfm(TfmSettings(**(small | more)))
    return made.initialise(
        made.source([rhythms(seconds=20.0, seed=n) for n in range(4)]).read([0, 1, 2, 3])
    )


def windows(made: Tfm, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((4, made.window_samples))
    return torch.from_numpy(noise.astype(np.float32))


def test_what_the_second_pass_sees_is_what_the_first_does_not() -> None:
    torch.manual_seed(0)
    first, second = complement_masks(50, 24, 10, 4, shared=False, device=torch.device("cpu"))
    assert bool((first ^ second).all())
    assert float(first.float().mean()) == 0.25  # half of the bands in half of the runs
    assert set(first.any(1).sum(-1).tolist()) == {5}  # half of the bands, in each example
    runs = first.unflatten(1, (6, 4))
    assert bool((runs.any(2) == runs.all(2)).all())
    assert not bool((first[0] == first[1]).all())
    shared = complement_masks(50, 24, 10, 4, shared=True, device=torch.device("cpu"))
    assert bool((shared == shared[:, :1]).all())


@pytest.mark.parametrize("published", [False, True])
def test_what_is_hidden_leaks_with_the_published_masks_alone(published: bool) -> None:
    """A rhythm in a band that is hidden throughout; its taper keeps it within three bins."""
    made = tokenizer(mask_time_path=not published)
    values = windows(made)
    network = made.network_
    with torch.inference_mode():
        n_frames = network.look(values).shape[1]
        nothing = torch.zeros(4, n_frames, network.n_bands, dtype=torch.bool)
        alike = torch.equal(
            network.latents(values, nothing), network.latents(windows(made, 1), nothing)
        )
        assert alike is not published
        seen = ~nothing
        seen[..., 3] = False  # 30 to 39 Hz
        times_s = torch.arange(made.window_samples) / 200
        before = network.latents(values, seen)
        moved = []
        for hz in (35.0, 55.0):
            added = values + 0.1 * torch.sin(2 * torch.pi * hz * times_s)
            moved.append(float((network.latents(added, seen) - before).norm()))
    assert moved[1] > 0
    if published:
        assert moved[0] > 0.5 * moved[1]
    else:
        assert moved[0] < 0.2 * moved[1]  # by way of the level that windows are divided by


@pytest.mark.parametrize("published", [False, True])
def test_the_commitment_moves_both_paths_of_the_encoder(published: bool) -> None:
    made = tokenizer(free_share=0.0, mask_time_path=not published, shared_masks=published)
    network = made.network_.train()
    batch = {"values": windows(made)}
    network(batch)  # codes begin at k-means of the first batch
    found = network({"values": windows(made, 1)})
    found["commitment"].backward()
    for weight in (network.embed_band.weight, network.raw[0].weight, network.narrow.weight):
        assert float(weight.grad.norm()) > 1e-6
    assert network.head.weight.grad is None  # the decoder has no part in it


def test_codes_wait_until_the_network_has_learned() -> None:
    made = tokenizer(n_steps=10, free_share=0.5)
    network = made.network_.train()
    losses = [
        float(network({"values": windows(made, n)})["commitment"].detach()) for n in range(10)
    ]
    assert losses[:5] == [0.0] * 5
    assert min(losses[5:]) > 0


def test_bands_must_divide_spectra() -> None:
    assert tokenizer().n_bins == 100
    assert tokenizer(band_hz=30.0).n_bins == 90  # whole bands
    for band_hz in (0.2, 60.0):
        with pytest.raises(ConfigError, match="two bands"):
            tokenizer(band_hz=band_hz)
