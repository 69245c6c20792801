"""BrainOmni and the trainer of masked tokens: what is hidden, what leaks, what is learned."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from afterimage.errors import ConfigError, InputError
from afterimage.pretraining.brain_omni import BrainOmni, BrainOmniSettings
from afterimage.pretraining.masked_tokens import TokenMaskSettings, draw_hidden

CODEBOOKS = np.random.default_rng(9).standard_normal((2, 8, 6))


def recording(seed: int, n_steps: int = 32, streams: tuple[str, ...] = ("a", "b", "c")) -> Any:
    """Random codes; stream b says what a says."""
    codes = np.random.default_rng(seed).integers(0, 8, (len(streams), n_steps, 2))
    codes[1] = codes[0]
    return SimpleNamespace(codes=codes.astype(np.int16), streams=np.array(streams))


def settings(**more: Any) -> BrainOmniSettings:
    return BrainOmniSettings(
        **{
            "n_features": 16, "n_layers": 2, "n_heads": 2, "n_steps": 4, "batch_size": 4,
            "context_steps": 16, "mask": TokenMaskSettings(block_steps=4),
        } | more
    )  # fmt: skip


def test_whole_blocks_are_hidden_in_the_share_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = TokenMaskSettings(block_steps=4, share=0.5)
    hidden = draw_hidden(mask, (50, 3, 30), generator)
    blocks = hidden[..., :28].unflatten(-1, (7, 4))
    assert bool((blocks.all(-1) == blocks.any(-1)).all())
    assert bool((hidden[..., 28] == hidden[..., 29]).all())
    counts = torch.cat([blocks.any(-1), hidden[..., 28:29]], -1).sum(-1)
    assert set(counts.flatten().tolist()) == {4}  # half of eight blocks, in every row
    assert not bool((hidden[:, 0] == hidden[:, 1]).all())
    together = draw_hidden(TokenMaskSettings(kind="steps", share=0.3), (400, 3, 9), generator)
    assert bool((together == together[:, :1]).all())
    assert abs(float(together.float().mean()) - 0.3) < 0.01  # 2.7 of 9, drawn


def test_hidden_tokens_and_absent_streams_do_not_leak() -> None:
    torch.manual_seed(0)
    model = BrainOmni(settings()).initialise(["a", "b", "c"], CODEBOOKS)
    codes = torch.randint(0, 8, (2, 3, 12, 2))
    hidden = torch.rand(2, 3, 12) < 0.4
    streams, known = (
        torch.tensor([[1, 2, 3], [1, 2, 0]]),
        torch.tensor([[True] * 3, [True, True, False]]),
    )
    with torch.inference_mode():
        before = model.network_(codes, hidden, streams, known)
        other = torch.where(hidden[..., None], (codes + 3) % 8, codes)
        assert torch.equal(model.network_(other, hidden, streams, known), before)
        other = codes.clone()
        other[1, 2] = (other[1, 2] + 1) % 8
        after = model.network_(other, hidden, streams, known)
        assert torch.equal(after[1, :2], before[1, :2])
        # What is seen reaches tokens of its stream and of its step.
        other = codes.clone()
        step = int((~hidden[0, 0]).nonzero()[0])
        other[0, 0, step] = (other[0, 0, step] + 1) % 8
        moved = (model.network_(other, hidden, streams, known) - before).abs().amax((-1, -2))
        assert float(moved[0].min()) > 0
        assert float(moved[1].max()) == 0


def test_streams_trained_on_are_told_apart_and_others_are_one() -> None:
    model = BrainOmni(settings()).initialise(["a", "b", "c"], CODEBOOKS)
    one = recording(0)
    renamed = SimpleNamespace(codes=one.codes, streams=np.array(["c", "b", "a"]))
    assert not np.allclose(model.latents(one), model.latents(renamed))
    new, newer = (
        SimpleNamespace(codes=one.codes, streams=np.array(["a", "b", name])) for name in ("x", "y")
    )
    assert np.array_equal(model.latents(new), model.latents(newer))
    assert model.latents(one).shape == (3, 32, 16)
    np.testing.assert_allclose(np.linalg.norm(model.latents(one), axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_stream_that_says_what_another_says_is_guessed_and_noise_is_not(symmetric: bool) -> None:
    """Stream c cannot be told from anything: its cross-entropy stays at ln 8, that of a and b not."""
    torch.set_num_threads(1)
    mask = TokenMaskSettings(block_steps=4, symmetric=symmetric)
    model = BrainOmni(
        settings(n_features=32, n_steps=250, batch_size=8, learning_rate=5e-3, mask=mask)
    )
    model.fit([recording(seed) for seed in range(40)], CODEBOOKS)
    held_out = [recording(seed) for seed in range(100, 120)]
    losses = np.mean([model.cross_entropy(one) for one in held_out], axis=0)
    assert losses.shape == (2,)
    # A third of the tokens is noise; of a and b half is told by the other: 2/3 ln 8 at best.
    assert np.all(losses < 0.85 * np.log(8))
    assert np.all(losses > 0.6 * np.log(8))
    broken = []
    for one in held_out:  # b no longer follows a
        codes = one.codes.copy()
        codes[1] = np.random.default_rng(5).integers(0, 8, codes[1].shape)
        broken.append(model.cross_entropy(SimpleNamespace(codes=codes, streams=one.streams)))
    assert np.mean(broken) > np.log(8)


def test_recordings_of_other_lengths_and_streams_train_together_and_a_run_resumes(
    tmp_path: Path,
) -> None:
    mixed = [recording(0), recording(1, 21), recording(2, 40, ("a", "d"))]

    def stop(step: int, _loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    whole = BrainOmni(settings(checkpoint_every=2)).fit(mixed, CODEBOOKS)
    with pytest.raises(KeyboardInterrupt):
        BrainOmni(settings(checkpoint_every=2)).fit(
            mixed, CODEBOOKS, checkpoint_folder=tmp_path, on_progress=stop
        )
    resumed = BrainOmni(settings(checkpoint_every=2)).fit(
        mixed, CODEBOOKS, checkpoint_folder=tmp_path
    )
    for key, array in whole.state()[0].items():
        assert np.array_equal(array, resumed.state()[0][key]), key
    again = BrainOmni.from_state(*whole.state())
    assert np.array_equal(again.latents(mixed[2]), whole.latents(mixed[2]))
    assert again.streams_ == ["a", "b", "c", "d"]


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="no tokens"):
        BrainOmni(settings()).fit([recording(0, 3)], CODEBOOKS)
    with pytest.raises(ConfigError, match="heads"):
        BrainOmni(settings(n_heads=3)).initialise(["a"], CODEBOOKS)
