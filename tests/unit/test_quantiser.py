"""The quantiser of all tokenizers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afterimage.tokenizers.quantiser import QuantiserSettings, new_quantiser


def blobs(n: int = 512, n_features: int = 8, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((16, n_features)) * 3
    found = centres[rng.integers(16, size=n)] + 0.1 * rng.standard_normal((n, n_features))
    return torch.from_numpy(found.astype(np.float32))


def trained(n_steps: int = 20, **more: object) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    quantiser = new_quantiser(8, QuantiserSettings(codebook_size=16, **more)).train()
    for step in range(n_steps):
        quantiser(blobs(seed=step))
    return quantiser.eval(), blobs(seed=99)


@pytest.mark.parametrize("n_stages", [1, 3])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("codebook_dim", [None, 4])
def test_codes_are_used_and_lookup_returns_what_was_quantised(
    n_stages: int, distance: str, codebook_dim: int | None
) -> None:
    quantiser, latents = trained(n_stages=n_stages, distance=distance, codebook_dim=codebook_dim)
    quantised, codes, loss = quantiser(latents.view(4, 128, 8))
    assert quantised.shape == (4, 128, 8)
    assert codes.shape == (4, 128, n_stages)
    assert len(codes[..., 0].unique()) >= 12
    assert float(loss.detach()) == 0  # nothing to be paid in evaluation
    torch.testing.assert_close(quantiser.lookup(codes), quantised)
    by_library, its_codes, _ = quantiser.stages(
        torch.nn.functional.normalize(latents, dim=-1) if distance == "cosine" else latents
    )
    assert torch.equal(codes.view(512, -1), its_codes)
    torch.testing.assert_close(quantised.view(512, 8), by_library)
    assert quantiser.codebooks().shape == (n_stages, 16, codebook_dim or 8)


def test_every_stage_comes_nearer() -> None:
    quantiser, latents = trained(n_stages=3)
    _, codes, _ = quantiser(latents)
    errors = [float((quantiser.lookup(codes, n) - latents).square().mean()) for n in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]


def test_padding_is_neither_seen_nor_coded() -> None:
    quantiser, latents = trained()
    valid = torch.ones(512, dtype=torch.bool)
    valid[100:200] = False
    wild = torch.where(valid[:, None], latents, 1e6)
    quantised, codes, _ = quantiser(wild, valid)
    expected, expected_codes, _ = quantiser(latents)
    assert (codes[~valid] == -1).all()
    assert not quantised[~valid].any()
    torch.testing.assert_close(quantised[valid], expected[valid])
    assert torch.equal(codes[valid], expected_codes[valid])
    quantiser.train()
    before = quantiser.codebooks().clone()
    quantiser(wild, valid)
    assert float((quantiser.codebooks() - before).abs().max()) < 1


@pytest.mark.parametrize("rotation_trick", [True, False])
def test_the_commitment_reaches_the_encoder_at_every_stage(rotation_trick: bool) -> None:
    torch.manual_seed(0)
    settings = QuantiserSettings(codebook_size=16, n_stages=2, rotation_trick=rotation_trick)
    quantiser = new_quantiser(8, settings).train()
    quantiser(blobs())
    latents = blobs(seed=5).requires_grad_()
    quantised, _, loss = quantiser(latents)
    loss.backward()
    alone = latents.grad.clone()
    assert float(alone.norm()) > 1e-4
    latents.grad = None
    quantised, _, _ = quantiser(latents)
    (quantised.square().mean()).backward()
    assert float(latents.grad.norm()) > 1e-4  # and so does what is made of the codes


def test_dead_codes_come_alive() -> None:
    torch.manual_seed(0)
    used = {}
    for threshold in (0.0, 1.0):
        settings = QuantiserSettings(
            codebook_size=64, kmeans_init=False, decay=0.8, threshold_ema_dead_code=threshold
        )
        quantiser = new_quantiser(8, settings).train()
        for step in range(60):
            quantiser(blobs(seed=step) + 50)
        used[threshold] = len(quantiser.eval()(blobs(seed=99) + 50)[1].unique())
    assert used[1.0] > 2 * used[0.0]
