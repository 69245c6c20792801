"""The temporal-spatial convolution: shapes, short epochs, independent trials, and decoding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afterimage.decoding.layout import Layout
from afterimage.decoding.temporal_spatial import TemporalSpatialDecoder, TemporalSpatialSettings
from afterimage.networks.projectors import TemporalSpatial


@pytest.mark.parametrize(("n_times", "n_windows"), [(1, 1), (6, 1), (11, 1), (16, 2), (60, 10)])
def test_windows_and_short_epochs(n_times: int, n_windows: int) -> None:
    torch.manual_seed(0)
    network = TemporalSpatial(
        5, n_times, 2, n_filters=4, kernel=9, pool=11, stride=5, dropout=0.5
    ).eval()
    signals, subjects = torch.randn(3, 5, n_times), torch.tensor([0, 1, 1])
    encoded = network(signals, subjects, torch.zeros(5, 2))
    assert encoded.shape == (3, 4 * n_windows) == (3, network.n_representation)
    # no statistic over the batch: a trial alone is encoded as among others
    alone = network(signals[:1], subjects[:1], torch.zeros(5, 2))
    torch.testing.assert_close(alone, encoded[:1])


def test_late_pattern_of_sensors_carries_the_image() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(260, 3))
    signals = rng.normal(size=(260, 8, 30))
    patterns = rng.normal(size=(3, 8))
    signals[:, :, 15:25] += (1.2 * hidden @ patterns)[:, :, None]
    features = (hidden @ rng.normal(size=(3, 12))).astype(np.float32)
    names = np.arange(260).astype(str)
    flat = signals.reshape(260, -1).astype(np.float32)
    layout = Layout(8, 30, np.arange(30) / 100, np.full((8, 3), np.nan), np.full(8, "eeg"))
    settings = TemporalSpatialSettings(n_steps=150, n_filters=8, learning_rate=3e-3)
    decoder = TemporalSpatialDecoder(settings).fit(
        flat[:200], {"clip": features[:200]}, names[:200], names[200:], layout=layout
    )
    gallery = {"clip": features[200:]}
    right = decoder.scores(flat[200:], gallery, layout=layout).argmax(1) == np.arange(60)
    assert right.mean() > 0.25  # chance 1/60
    blind = signals[200:].copy()
    blind[:, :, 10:28] = rng.normal(size=(60, 8, 18))
    lost = decoder.scores(blind.reshape(60, -1).astype(np.float32), gallery, layout=layout)
    assert (lost.argmax(1) == np.arange(60)).mean() < 0.12
