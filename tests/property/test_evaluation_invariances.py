"""What must not change a score."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from afterimage.evaluation.identification import ranks, retrieval, similarity, two_way
from afterimage.evaluation.images import mse, pairwise_ssim, pixcorr, ssim
from afterimage.evaluation.statistics import holm, permutation_chance, permuted_pairs

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


def pictures(seed: int, n: int):
    generator = np.random.default_rng(seed)
    truth, recon = generator.random((2, n, 12, 13, 3)).astype(np.float32)
    return truth, recon, generator.permutation(n)


@few
@given(seeds, st.integers(2, 9))
def test_order_of_images_changes_no_value(seed, n) -> None:
    truth, recon, order = pictures(seed, n)
    for metric in (pixcorr, mse, ssim):
        np.testing.assert_allclose(
            metric(truth[order], recon[order]), metric(truth, recon)[order], atol=1e-12
        )
    matrix = similarity(recon, truth)
    again = similarity(recon[order], truth[order])
    np.testing.assert_allclose(two_way(again), two_way(matrix)[order])
    for direction in ("brain_to_image", "image_to_brain"):
        np.testing.assert_array_equal(
            ranks(again, direction=direction), ranks(matrix, direction=direction)[order]
        )


@few
@given(seeds, st.floats(0.05, 1.0), st.floats(0.0, 1.0))
def test_pixcorr_ignores_brightness_and_contrast(seed, contrast, shift) -> None:
    truth, recon, _ = pictures(seed, 3)
    changed = (contrast * recon + (1 - contrast) * shift).astype(np.float32)
    np.testing.assert_allclose(pixcorr(truth, changed), pixcorr(truth, recon), atol=1e-5)


@few
@given(seeds, st.integers(2, 12))
def test_scores_are_shares_and_a_perfect_decoder_is_perfect(seed, n) -> None:
    generator = np.random.default_rng(seed)
    true, predicted = generator.standard_normal((2, n, 5))
    rates = two_way(similarity(predicted, true))
    assert np.all((rates >= 0) & (rates <= 1))
    perfect = similarity(true, true)
    assert np.all(two_way(perfect) == 1)
    assert np.all(retrieval(perfect, 1, direction="image_to_brain") == 1)


@few
@given(seeds, st.integers(2, 12), st.floats(0.1, 5.0))
def test_two_way_sees_only_the_order_of_similarities(seed, n, power) -> None:
    similarities = np.random.default_rng(seed).random((n, n))
    np.testing.assert_array_equal(two_way(similarities), two_way(np.exp(power * similarities)))


@few
@given(seeds, st.integers(2, 8))
def test_ssim_is_symmetric_and_bounded(seed, n) -> None:
    truth, recon, _ = pictures(seed, n)
    np.testing.assert_allclose(ssim(truth, recon), ssim(recon, truth), atol=1e-12)
    matrix = pairwise_ssim(truth, recon)
    np.testing.assert_allclose(np.diag(matrix), ssim(truth, recon), atol=1e-4)
    assert np.all(np.abs(matrix) <= 1 + 1e-4)


@few
@given(seeds, st.integers(2, 10))
def test_chance_does_not_depend_on_scale(seed, n) -> None:
    scores = np.random.default_rng(seed).random((n, n))
    pairs = permuted_pairs(n, 50, random_state=seed % 1000)
    plain, scaled = permutation_chance(scores, pairs), permutation_chance(3 * scores + 1, pairs)
    assert plain.p == scaled.p
    np.testing.assert_allclose(scaled.mean, 3 * plain.mean + 1)
    assert permutation_chance(-scores, pairs, higher_is_better=False).p == plain.p


@few
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_lies_between_p_and_bonferroni(p_values) -> None:
    adjusted = holm(p_values)
    assert np.all(adjusted >= np.array(p_values))
    assert np.all(adjusted <= np.minimum(1, len(p_values) * np.array(p_values)) + 1e-12)
