"""Tokens of planted time-frequency motifs: whether they stand for the motifs, and what they tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.truth.motif_study import (
    Found,
    agreement,
    codes_of,
    data,
    k_means_codes,
    signals_of,
    spectra_of,
    study,
    told_of_hidden,
    truth_of,
)

from afterimage.simulate.motifs import MOTIFS, STATES, PlantedMotifs, motif_course, planted_motifs
from afterimage.tokenizers.eegformer import Eegformer, EegformerSettings
from afterimage.tokenizers.quantiser import QuantiserSettings
from afterimage.tokenizers.spectral import SpectralTokenizer
from afterimage.tokenizers.tfm import Tfm, TfmSettings

CODES = QuantiserSettings(codebook_size=32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_motifs_are_as_loud_as_stated_and_where_stated() -> None:
    loud = planted_motifs(8, channels=range(4), snr_db=20, random_state=0)
    quiet = planted_motifs(8, channels=range(4), snr_db=-60, random_state=0)
    # The same seed draws the same noise and times: the difference is what was planted.
    assert np.array_equal(loud.motifs, quiet.motifs)
    planted = loud.values - quiet.values
    on = loud.motifs > 0
    noise = quiet.values.std((0, 2))  # by electrode
    ratio = [np.sqrt(np.mean(planted[:, c][on[:, c]] ** 2)) / noise[c] for c in range(4)]
    assert np.all(np.abs(np.log(np.array(ratio) / 10)) < 0.15)  # 20 dB
    assert np.abs(planted[~on]).max() < 1e-3 * np.abs(planted).max()
    kinds = np.bincount(loud.motifs[on], minlength=len(MOTIFS) + 1)[1:]
    assert (kinds > 0).all()


def test_a_state_has_its_motifs() -> None:
    many = planted_motifs(40, channels=range(8), random_state=0)
    for state, pair in enumerate(STATES):
        here = many.motifs[many.states == state]
        own = np.isin(here[here > 0], [1 + MOTIFS.index(name) for name in pair])
        assert 0.62 < own.mean() < 0.78  # 0.7 in expectation, of some 300 motifs


@pytest.mark.parametrize("name", MOTIFS)
def test_a_motif_has_its_rhythm(name: str) -> None:
    rng = np.random.default_rng(0)
    middles = []
    for _ in range(20):
        course = motif_course(name, 2.0, 200.0, rng)
        assert abs(np.mean(course**2) - 1) < 1e-9
        power = np.abs(np.fft.rfft(course * np.hanning(400))) ** 2
        # Half of the power is below: harmonics of a saw tooth reach far and hold little.
        middles.append(np.searchsorted(np.cumsum(power), power.sum() / 2) / 2)
    low, high = {
        "spindle": (12, 15), "spike_wave": (2.5, 4), "alpha": (8.5, 10.5), "k_complex": (0.3, 3),
        "chirp_up": (8, 14), "chirp_down": (8, 14), "muscle": (45, 75), "theta": (5, 6.5),
    }[name]  # fmt: skip
    assert low < np.mean(middles) < high


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tfm", "eegformer"])
def test_codes_tell_motifs_better_than_clusters_of_spectra(kind: str) -> None:
    """Small ones, a few seconds; in these a TFM does not yet pass clusters: the study is below."""
    train = planted_motifs(30, channels=range(8), random_state=1)
    test = planted_motifs(12, channels=range(8), random_state=2)
    tokenizer: SpectralTokenizer = Eegformer(EegformerSettings(n_steps=350, quantiser=CODES))
    if kind == "tfm":
        tokenizer = Tfm(TfmSettings(n_steps=120, batch_size=6, quantiser=CODES))
    tokenizer.fit(tokenizer.source(signals_of(train)))
    codes = codes_of(tokenizer, test)
    truth = truth_of(tokenizer, test, codes.shape[-1])
    found = agreement(codes, truth, 32)
    shuffled = np.random.default_rng(0).permuted(codes, axis=-1)
    assert found.nmi_motifs > (0.42 if kind == "tfm" else 0.5)
    assert found.used >= 0.9
    assert found.perplexity > 16
    assert agreement(shuffled, truth, 32).nmi_motifs < 0.5 * found.nmi_motifs
    if kind == "eegformer":
        spectra = [spectra_of(tokenizer, one, plain=True) for one in (train, test)]
        clusters = agreement(k_means_codes(spectra[0], spectra[1:], 32)[0], truth, 32)
        assert found.nmi_motifs > clusters.nmi_motifs


def studied(
    tokenizer: SpectralTokenizer, random_state: int
) -> tuple[Found, dict[str, PlantedMotifs]]:
    sets = data(40, 24, 20.0, random_state)
    tokenizer.fit(tokenizer.source(signals_of(sets["train"])))
    found = study(tokenizer, sets)
    print(found)
    codes_are_of_motifs(found)
    return found, sets


def codes_are_of_motifs(found: Found) -> None:
    """Check what all are asked, over frames that one motif, or none, fills to three quarters."""
    assert found.agreement.nmi_motifs >= 0.6
    assert found.agreement.nmi_motifs > found.k_means.nmi_motifs
    assert found.agreement.used >= 0.9
    assert found.agreement.perplexity > 16
    assert found.probe >= 0.9 * found.probe_truth
    assert found.shifted >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_tfm_recovers_motifs_and_carries_over_to_other_montages(seed: int) -> None:
    settings = TfmSettings(n_steps=800, batch_size=8, quantiser=CODES, random_state=seed)
    tokenizer = Tfm(settings)
    found, sets = studied(tokenizer, seed)
    assert found.probe > found.probe_k_means
    assert found.average >= found.probe - 0.05
    assert found.electrode >= found.probe - 0.05
    hidden, seen = told_of_hidden(tokenizer, sets["test"])
    print(hidden, seen)
    assert hidden < 0.01
    assert seen > 0.25


@pytest.mark.slow
def test_with_the_published_masks_what_is_hidden_is_told() -> None:
    settings = TfmSettings(n_steps=800, batch_size=8, quantiser=CODES, random_state=1,
                           mask_time_path=False, shared_masks=True)  # fmt: skip
    tokenizer = Tfm(settings)
    hidden, seen = told_of_hidden(tokenizer, studied(tokenizer, 1)[1]["test"])
    print(hidden, seen)
    assert hidden > 0.4 * seen


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_n_grams_of_eegformer_tell_states_better_than_band_power(seed: int) -> None:
    settings = EegformerSettings(n_steps=1000, quantiser=CODES, random_state=seed)
    found, _ = studied(Eegformer(settings), seed)
    assert found.bayes >= 0.85
    assert found.bayes > found.band_power
