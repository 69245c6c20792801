"""Networks over spectra: masks, what a hidden part can tell, and gradients of the quantiser."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from afterimage.errors import ConfigError
from afterimage.networks.time_frequency import Frames, MotifNetwork, complement_masks
from afterimage.tokenizers.eegformer import Eegformer, EegformerSettings
from afterimage.tokenizers.quantiser import QuantiserSettings, new_quantiser
from afterimage.tokenizers.tfm import Tfm, TfmSettings


def network(*, mask_time_path: bool = True, shared_masks: bool = False) -> MotifNetwork:
    torch.manual_seed(0)
    frames = Frames(40, 20, torch.zeros(20), torch.ones(20))
    return MotifNetwork(
        frames, new_quantiser(4, QuantiserSettings(codebook_size=8)), n_features=16, n_layers=1,
        n_code_features=4, n_decoder_layers=0, n_heads=2, free_steps=0, reach=1, band=5, span=2,
        mask_time_path=mask_time_path, shared_masks=shared_masks,
    )  # fmt: skip


def test_passes_see_complements_and_each_example_has_its_own() -> None:
    torch.manual_seed(1)
    cpu = torch.device("cpu")
    first, second = complement_masks(64, 20, 10, 4, shared=False, device=cpu)
    assert torch.equal(first, ~second)
    assert abs(float(first.float().mean()) - 0.2) < 0.05  # 2 of 5 runs, 5 of 10 bands
    assert len({tuple(mask.flatten().tolist()) for mask in first}) > 50
    # What is seen is whole runs of frames by whole bands.
    runs = first.view(64, 5, 4, 10)
    assert (runs == runs[:, :, :1]).all()
    assert set(first.any(1).sum(-1).tolist()) == {5}
    same = complement_masks(64, 20, 10, 4, shared=True, device=cpu)[0]
    assert (same == same[:1]).all()


class Fixed(nn.Module):
    """Frames whose parts are given, so that what is hidden can be changed alone."""

    def __init__(self, frames: Frames, parts: tuple[Tensor, Tensor, Tensor]) -> None:
        super().__init__()
        self.parts, self.shape, self.back, self.scale = (
            parts,
            frames.shape,
            frames.back,
            frames.scale,
        )

    def forward(self, _values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.parts


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_hidden_is_hidden_from_both_paths_unless_asked_otherwise(masked: bool) -> None:
    model = network(mask_time_path=masked).eval()
    values = torch.randn(3, 200)
    frames, spectra, magnitudes = model.frames(values)
    seen = torch.rand(3, 9, 4) < 0.5
    hidden = ~seen.repeat_interleave(5, -1)  # (3, 9, 20), bins
    changed = spectra + hidden * torch.randn_like(spectra.real)
    other = (frames + torch.randn_like(frames), changed, changed.abs())
    found = []
    for parts in ((frames, spectra, magnitudes), other):
        model.frames = Fixed(network().frames, parts)  # type: ignore[assignment]
        found.append(model.latents(values, seen))
    assert torch.equal(*found) == masked


def test_commitment_moves_the_encoder_and_codes_follow() -> None:
    model = network().train()
    batch = {"values": torch.randn(8, 200)}
    model(batch)  # codes start
    before = model.quantiser.codebooks().clone()
    parts = model(batch)
    assert parts["commitment"] > 0
    weights = [model.narrow.weight, model.embed_band.weight, model.raw[0].weight]
    alone = torch.autograd.grad(parts["commitment"], weights, retain_graph=True)
    # In the published code the gradients of both terms of the quantiser cancel: 0 is what it gives.
    assert all(float(one.norm()) > 1e-6 for one in alone)
    error = torch.autograd.grad(parts["error"], weights, retain_graph=True)
    both = torch.autograd.grad(parts["loss"], weights)
    for a, b, c in zip(alone, error, both, strict=True):
        assert torch.allclose(a + b, c, atol=1e-6)
    assert not torch.equal(before, model.quantiser.codebooks())


def test_first_steps_have_no_codes() -> None:
    model = network().train()
    model.free_steps = 2
    commitments = [
        float(model({"values": torch.randn(4, 200)})["commitment"].detach()) for _ in range(4)
    ]
    assert commitments[:2] == [0.0, 0.0]
    assert commitments[3] > 0


def test_gain_of_a_channel_does_not_change_its_codes() -> None:
    model = network().eval()
    values = torch.randn(4, 200)
    assert torch.equal(model.encode(values), model.encode(8 * values))


@pytest.mark.parametrize("more", [{"band_hz": 0.2}, {"band_hz": 60.0}, {"hop_s": 1.5}])
def test_bands_and_frames_that_do_not_fit_are_refused(more: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Tfm(TfmSettings(**more)).initialise()


def test_bins_are_whole_bands_below_half_the_rate() -> None:
    assert Tfm(TfmSettings(sfreq_hz=200.0, band_hz=8.0)).n_bins == 96
    assert Eegformer(EegformerSettings(sfreq_hz=200.0)).n_bins == 100
