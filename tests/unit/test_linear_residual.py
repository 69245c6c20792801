"""The linear-residual projector: its network is what it says, and it decodes epochs."""

from __future__ import annotations

import numpy as np
import torch

from afterimage.decoding.linear_residual import LinearResidualDecoder, LinearResidualSettings
from afterimage.networks.projectors import LinearResidual


def test_network_is_linear_plus_residual() -> None:
    torch.manual_seed(0)
    network = LinearResidual(5, 7, 1, n_hidden=6, dropout=0.5, input_dropout=0.25).eval()
    signals, subjects = torch.randn(3, 5, 7), torch.zeros(3, dtype=torch.long)
    linear = signals.reshape(3, 35) @ network.linear.weight.T + network.linear.bias
    inner = network.residual[1]
    hidden = linear + torch.nn.functional.gelu(linear) @ inner.weight.T + inner.bias
    centred = hidden - hidden.mean(1, keepdim=True)
    expected = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(network(signals, subjects, torch.zeros(5, 2)), expected)


def test_one_unit_in_one_time_carries_the_image() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(260, 3))
    signals = rng.normal(size=(260, 8, 5))
    signals[:, [1, 4, 6], 3] += 3 * hidden
    features = {"clip": (hidden @ rng.normal(size=(3, 12))).astype(np.float32)}
    names = np.arange(260).astype(str)
    flat = signals.reshape(260, -1).astype(np.float32)
    known = {"clip": features["clip"][:200]}
    settings = LinearResidualSettings(n_steps=150, n_hidden=32)
    decoder = LinearResidualDecoder(settings).fit(flat[:200], known, names[:200], names[200:])
    gallery = {"clip": features["clip"][200:]}
    assert top5(decoder.scores(flat[200:], gallery)) > 0.35  # chance 5/60
    blind = signals[200:].copy()
    blind[:, :, 3] = rng.normal(size=(60, 8))
    assert top5(decoder.scores(blind.reshape(60, -1).astype(np.float32), gallery)) < 0.2


def top5(scores: np.ndarray) -> float:
    own = np.diag(scores)[:, None]
    return float(((scores > own).sum(1) < 5).mean())
