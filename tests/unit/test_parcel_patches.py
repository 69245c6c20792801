"""The plain transformer: patches are told apart, sizes that do not fit are refused."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import ConfigError
from afterimage.pretraining.masked_model import prepare
from afterimage.pretraining.parcel_patches import ParcelPatches, ParcelPatchesSettings


def settings(regions_per_patch: int) -> ParcelPatchesSettings:
    return ParcelPatchesSettings(
        regions_per_patch=regions_per_patch, segment_volumes=5, n_features=16, n_layers=1,
        n_heads=2,
    )  # fmt: skip


@pytest.mark.parametrize(("size", "n_places"), [(0, 1), (3, 4), (1, 12)])
def test_a_patch_holds_so_many_regions(size: int, n_places: int) -> None:
    model = ParcelPatches(settings(size)).initialise(12)
    assert model.network_.place.shape == (n_places, 16)
    recording = prepare(np.random.default_rng(0).standard_normal((40, 12)))
    assert model.latents(recording).shape == (8, 16)
    assert model.fill_in([recording], 0)[0].predicted.shape == (8, 12, 5)


def test_a_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="do not fit") as caught:
        ParcelPatches(settings(5)).initialise(12)
    assert caught.value.exit_code == 78


def test_recordings_of_different_length_are_embedded_alike() -> None:
    model = ParcelPatches(settings(0)).initialise(4)
    series = np.random.default_rng(0).standard_normal((60, 4))
    long, short = prepare(series), prepare(series[:37])
    assert model.encode([long, short]).shape == (2, 16)
    tokens, known = model.stacked([long, short])
    assert tokens.shape == (2, 7, 4, 5)
    assert known.all()
