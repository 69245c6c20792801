"""TFM-Encoder: hidden tokens of planted motifs are guessed better than by any table of codes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.truth.motif_study import signals_of

from afterimage.errors import ConfigError
from afterimage.evaluation.token_baselines import CodeGuesses
from afterimage.pretraining.masked_tokens import TokenMaskSettings, draw_hidden
from afterimage.pretraining.tfm_codes import TfmCodes, TfmCodesSettings
from afterimage.simulate.motifs import planted_motifs
from afterimage.tokenizers.quantiser import QuantiserSettings
from afterimage.tokenizers.tfm import Tfm, TfmSettings

CODEBOOKS = np.random.default_rng(9).standard_normal((2, 8, 6))
RIVALS = ("unigram", "bigram", "copy neighbour")


def study(seed: int, n_train: int, tokenizer_steps: int, **more: Any) -> dict[str, float]:
    """Cross-entropy of hidden tokens of recordings held out, nats, of the model and its rivals.

    Electrodes see their neighbours' sources too, so that channels tell of each other.
    """
    torch.set_num_threads(1)
    train, test = (
        signals_of(
            planted_motifs(
                n, channels=range(6), duration_s=16.0, neighbour=0.6, random_state=10 * seed + part
            )
        )
        for part, n in enumerate((n_train, 12), 1)
    )
    codes = QuantiserSettings(codebook_size=32)
    tokenizer = Tfm(
        TfmSettings(n_steps=tokenizer_steps, batch_size=4, quantiser=codes, random_state=seed)
    )
    tokenizer.fit(tokenizer.source(train))
    own, held_out = ([tokenizer.encode(one) for one in part] for part in (train, test))
    sizes: dict[str, Any] = {"n_features": 32, "n_heads": 4, "warmup_steps": 20}
    settings = TfmCodesSettings(**(sizes | more), random_state=seed)
    model = TfmCodes(settings).fit(own, tokenizer.codebooks())
    guesses = CodeGuesses([one.codes[..., 0] for one in own], 32)
    rivals = [guesses.losses(one.codes[..., 0]) for one in held_out]
    found = {name: float(np.mean([one[name] for one in rivals])) for name in rivals[0]}
    return found | {"model": float(np.mean([model.cross_entropy(one)[0] for one in held_out]))}


def test_hidden_motifs_are_guessed() -> None:
    found = study(
        0, 30, 60, n_layers=2, context_steps=16, batch_size=8, n_steps=130, learning_rate=8e-3
    )
    print(found)
    for rival in RIVALS:
        assert found["model"] < found[rival] - 0.05, rival


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("block_steps", [1, 4])
def test_hidden_motifs_are_guessed_whatever_the_seed(seed: int, block_steps: int) -> None:
    """All that is near is given to the rivals, also where the model has none of it."""
    mask = TokenMaskSettings(share=0.5, random_share=0.0, symmetric=True, block_steps=block_steps)
    found = study(
        seed, 80, 200, context_steps=24, batch_size=12, n_steps=300, learning_rate=4e-3, mask=mask
    )
    print(found)
    assert found["model"] < found["unigram"] - 0.3
    if block_steps == 1:
        for rival in RIVALS:
            assert found["model"] < found[rival] - 0.2, rival


def test_the_preset_is_the_published_one() -> None:
    settings = TfmCodesSettings()
    assert (settings.n_features, settings.n_layers, settings.n_heads) == (64, 4, 8)
    assert settings.mask.symmetric
    hidden = draw_hidden(settings.mask, (20, 3, 40), torch.Generator().manual_seed(0))
    assert set(hidden.sum(-1).flatten().tolist()) == {20}


def test_hidden_tokens_and_absent_channels_do_not_leak_and_all_others_tell() -> None:
    torch.manual_seed(0)
    model = TfmCodes(TfmCodesSettings(n_features=16, n_layers=2, n_heads=2))
    model.initialise(["a", "b", "c"], CODEBOOKS)
    # Tokens begin as the codebook says, each stage without its mean.
    centred = CODEBOOKS - CODEBOOKS.mean(1, keepdims=True)
    own = model.network_.code.detach().numpy()
    np.testing.assert_allclose(own, centred / np.sqrt((centred**2).mean()), rtol=1e-5)
    codes = torch.randint(0, 8, (2, 3, 12, 2))
    hidden = torch.rand(2, 3, 12) < 0.4
    streams = torch.tensor([[1, 2, 3], [1, 2, 0]])
    known = torch.tensor([[True] * 3, [True, True, False]])
    with torch.inference_mode():
        before = model.network_(codes, hidden, streams, known)
        assert before.shape == (2, 3, 12, 2, 8)
        other = torch.where(hidden[..., None], (codes + 3) % 8, codes)
        assert torch.equal(model.network_(other, hidden, streams, known), before)
        other = codes.clone()
        other[1, 2] = (other[1, 2] + 1) % 8  # a channel that is not there
        assert torch.equal(model.network_(other, hidden, streams, known)[1, :2], before[1, :2])
        alone = model.network_(codes[1:, :2], hidden[1:, :2], streams[1:, :2], known[1:, :2])
        torch.testing.assert_close(alone[0], before[1, :2], atol=1e-5, rtol=1e-4)
        other = codes.clone()
        step = int((~hidden[0, 0]).nonzero()[0])
        other[0, 0, step] = (other[0, 0, step] + 1) % 8
        moved = (model.network_(other, hidden, streams, known) - before).abs().amax((-1, -2))
        assert float(moved[0].min()) > 0  # of all channels and steps
        assert float(moved[1].max()) == 0


def test_channels_come_in_any_order_and_the_model_is_stored() -> None:
    model = TfmCodes(
        TfmCodesSettings(n_features=16, n_layers=2, n_heads=2, n_steps=3, batch_size=2)
    )
    rng = np.random.default_rng(0)
    recordings: list[Any] = [
        SimpleNamespace(
            codes=rng.integers(0, 8, (n, 20, 2)).astype(np.int16),
            streams=np.array(list("abc")[:n]),
        )
        for n in (3, 2, 3)
    ]
    model.fit(recordings, CODEBOOKS)
    one, order = recordings[0], [2, 0, 1]
    turned = SimpleNamespace(codes=one.codes[order], streams=one.streams[order])
    np.testing.assert_allclose(model.latents(turned), model.latents(one)[order], atol=1e-5)
    assert model.latents(one).shape == (3, 20, 16)
    again = TfmCodes.from_state(*model.state())
    assert np.array_equal(again.latents(one), model.latents(one))
    with pytest.raises(ConfigError, match="heads"):
        TfmCodes(TfmCodesSettings(n_heads=3)).initialise(["a"], CODEBOOKS)
