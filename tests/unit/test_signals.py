"""Signals as tokenizers take them."""

from __future__ import annotations

import numpy as np
import pytest
from tests.tokenizer_example import rhythms

from afterimage.errors import InputError
from afterimage.tokenizers.signals import (
    ListSource,
    new_signal,
    place,
    resample,
    standardise,
    window_starts,
)

NOISE = np.random.default_rng(0).standard_normal((4, 1000))


def test_what_cannot_be_tokenised_is_refused() -> None:
    bad = NOISE.copy()
    bad[1, 5] = np.nan
    with pytest.raises(InputError, match="cannot be tokenised") as caught:
        new_signal(bad, 100.0, list("abcd"), where="sub-01")
    assert "not finite in b" in str(caught.value)
    assert "sub-01" in str(caught.value)
    for values, rate, names, kinds, what in (
        (NOISE[0], 100.0, ["a"], "eeg", "shape"),
        (NOISE[:0], 100.0, [], "eeg", "shape"),
        (NOISE, 100.0, list("abc"), "eeg", "another number"),
        (NOISE, 0.0, list("abcd"), "eeg", "0.0 Hz"),
        (NOISE, 100.0, list("abcd"), "fnirs", "kind fnirs"),
    ):
        with pytest.raises(InputError) as caught:
            new_signal(values, rate, names, kinds)
        assert what in caught.value.found


def test_each_kind_has_its_scale_and_channels_keep_their_ratios() -> None:
    unit = np.array([1e-5, 3e-5, 1e-12, 2e-12])
    kinds = ["eeg", "eeg", "mag", "mag"]
    signal = new_signal((NOISE + 50) * unit[:, None], 100.0, list("abcd"), kinds)
    spread = NOISE.std(1)
    deviation = standardise(signal).values.std(1)
    assert deviation[1] / deviation[0] == pytest.approx(3 * spread[1] / spread[0], rel=1e-3)
    assert deviation[3] / deviation[2] == pytest.approx(2 * spread[3] / spread[2], rel=1e-3)
    assert 0.3 < deviation.min() < deviation.max() < 3
    assert np.abs(np.median(standardise(signal).values, axis=1)).max() < 1e-3


def test_flat_channels_are_zero_and_artefacts_are_clipped() -> None:
    values = NOISE.copy()
    values[2] = 7.0
    values[0, 10] = 1e9
    scaled = standardise(new_signal(values, 100.0, list("abcd"))).values
    assert not scaled[2].any()
    assert scaled[0, 10] == 20.0
    assert scaled[0].std() < 3
    with pytest.raises(InputError, match="cannot be tokenised") as caught:
        standardise(new_signal(np.ones((2, 50)), 100.0, ["a", "b"]))
    assert caught.value.found == "flat channels only"


def test_unknown_positions_are_skipped_found_by_name_or_refused() -> None:
    known = np.full((4, 3), np.nan)
    known[0] = 0.01, 0.02, 0.03
    signal = new_signal(NOISE, 100.0, ["a", "cz", "b", "Oz"], positions_m=known)
    assert place(signal, "skip").names.tolist() == ["a"]
    found = place(signal, "template")
    assert found.names.tolist() == ["a", "cz", "Oz"]
    assert np.array_equal(found.positions_m[0], known[0].astype(np.float32))
    assert found.positions_m[1, 2] > 0.07  # the top of the head, in m
    assert found.positions_m[2, 1] < -0.05  # its back
    with pytest.raises(InputError, match="positions of sensors") as caught:
        place(signal, "fail")
    assert caught.value.found == "cz, b, Oz"
    magnetic = new_signal(NOISE, 100.0, ["Cz", "a", "b", "c"], "mag")
    with pytest.raises(InputError, match="positions of sensors"):
        place(magnetic, "template")  # the template is of electrodes


def test_another_rate_keeps_what_both_can_hold() -> None:
    slow, fast = (rhythms(sfreq_hz=rate, seconds=6) for rate in (200.0, 200.0))
    assert resample(slow, 200.0) is slow
    times = np.arange(3000) / 500
    sine = new_signal(np.sin(2 * np.pi * 7 * times)[None], 500.0, ["a"])
    found = resample(sine, 128.0)
    assert found.n_times == 768
    expected = np.sin(2 * np.pi * 7 * np.arange(768) / 128)
    assert np.abs(found.values[0, 50:-50] - expected[50:-50]).max() < 0.01
    assert fast.n_times == 1200


def test_windows_cover_and_overlap_as_asked() -> None:
    assert window_starts(10, 4).tolist() == [0, 4]
    assert window_starts(10, 4, 0.5).tolist() == [0, 2, 4, 6]
    with pytest.raises(InputError, match="shorter than a window"):
        window_starts(3, 4)
    source = ListSource([rhythms(seconds=3), rhythms(seconds=2)], 200)
    assert len(source) == 5
    window = source.read(np.array([4]))[0]
    assert np.array_equal(window.values, rhythms(seconds=2).values[:, 200:])
