"""The simulated visual brain: its truth is what it says it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afterimage.simulate.visual_brain import (
    EARLY,
    SELECTIVE,
    VisualBrain,
    draw_brain,
    measure,
    respond,
)

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (40, 48, 48, 3), dtype=np.uint8)
ATTRIBUTES = {
    "category": np.array(list(SELECTIVE.values()) * 5),
    "x": rng.uniform(0.3, 0.7, 40),
    "y": rng.uniform(0.3, 0.7, 40),
    "size": rng.uniform(0.2, 0.4, 40),
}


def one_unit(**values: float) -> VisualBrain:
    """Return a brain of one early unit at a known place, indifferent to luminance."""
    brain = draw_brain(1, 0, 0.8, 0)
    changed = {name: np.array([value]) for name, value in values.items()}
    return replace(brain, luminance=np.zeros(1), **changed)


def first(n: int) -> dict[str, np.ndarray]:
    """Return the attributes of n pictures."""
    return {name: values[:n] for name, values in ATTRIBUTES.items()}


def test_same_seed_same_brain_other_seed_another() -> None:
    one, same, other = (draw_brain(30, 10, 0.7, seed) for seed in (1, 1, 2))
    assert one.roi.tolist() == same.roi.tolist()
    np.testing.assert_array_equal(one.x, same.x)
    assert one.roi.tolist() != other.roi.tolist()
    assert set(one.roi[:30]) <= set(EARLY)
    assert set(one.roi[30:]) <= set(SELECTIVE)


def test_signals_are_standardised() -> None:
    signal = respond(draw_brain(20, 10, 0.7, 0), IMAGES, ATTRIBUTES)
    assert signal.shape == (40, 30)
    assert signal.dtype == np.float32
    np.testing.assert_allclose(signal.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(signal.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("asked", [0.3, 0.6, 0.9])
def test_single_trials_reach_just_the_ceiling(asked: float) -> None:
    generator = np.random.default_rng(1)
    signal = generator.standard_normal((20000, 40)).astype(np.float32)
    trials = measure(signal, np.full(40, asked), 5)
    found = [np.corrcoef(signal[:, unit], trials[:, unit])[0, 1] for unit in range(40)]
    np.testing.assert_allclose(found, asked, atol=0.02)


def test_half_of_the_noise_is_shared() -> None:
    signal = np.zeros((5000, 40), np.float32)
    noise = measure(signal, np.full(40, 0.5), 3)
    correlation = np.corrcoef(noise.T)[np.triu_indices(40, 1)]
    # 2 shared sources for 40 units: the mean squared correlation of their mixtures is 1/2, times
    # the squared half of the variance that is shared.
    assert abs((correlation**2).mean() - 0.125) < 0.04
    np.testing.assert_array_equal(noise, measure(signal, np.full(40, 0.5), 3))
    assert not np.array_equal(noise, measure(signal, np.full(40, 0.5), 4))


def test_a_receptive_field_sees_its_place_only() -> None:
    brain = one_unit(x=0.25, y=0.25, size=0.04)
    far, near = IMAGES.copy(), IMAGES.copy()
    far[:, :, 26:], far[:, 26:] = 128, 128
    near[:, 6:18, 6:18] = 255 - near[:, 6:18, 6:18][::-1]
    signal = respond(brain, IMAGES, ATTRIBUTES)
    np.testing.assert_allclose(respond(brain, far, ATTRIBUTES), signal, atol=1e-3)
    assert np.abs(respond(brain, near, ATTRIBUTES) - signal).max() > 0.5


def test_early_units_prefer_their_orientation_and_frequency() -> None:
    brain = one_unit(x=0.5, y=0.5, size=0.12, orientation=0.6, frequency=6.0)
    row, column = np.mgrid[:48, :48] / 48 - 0.5
    angles = np.linspace(0, np.pi, 12, endpoint=False)

    def grating(angle: float, frequency: float) -> np.ndarray:
        wave = np.cos(2 * np.pi * frequency * (column * np.cos(angle) + row * np.sin(angle)))
        return np.repeat((127 + 100 * wave)[..., None], 3, axis=2).astype(np.uint8)

    turned = respond(brain, np.stack([grating(angle, 6.0) for angle in angles]), first(12))
    assert abs(angles[turned[:, 0].argmax()] - 0.6) < np.pi / 12
    frequencies = np.array([2.0, 4.0, 6.0, 9.0, 13.0])
    scaled = respond(brain, np.stack([grating(0.6, f) for f in frequencies]), first(5))
    assert frequencies[scaled[:, 0].argmax()] == 6.0


def test_early_units_prefer_their_hue() -> None:
    """Channel 0 lies at red: green, its opposite, leaves it as silent as grey."""
    brain = one_unit(x=0.5, y=0.5, size=0.1, hue=0)
    grey = np.random.default_rng(2).integers(0, 180, (10, 48, 48, 1), dtype=np.uint8)
    tints = np.array([[70, 0, 0], [0, 0, 0], [0, 70, 0]], np.uint8)
    pictures = np.concatenate([grey + tint for tint in tints])
    means = respond(brain, pictures, first(30)).reshape(3, 10).mean(axis=1)
    assert means[0] > 0.7
    assert abs(means[1] - means[2]) < 0.2


def test_selective_units_prefer_their_category() -> None:
    brain = draw_brain(0, 80, 0.8, 2)
    signal = respond(brain, IMAGES, ATTRIBUTES)
    for roi, category in SELECTIVE.items():
        units = signal[:, brain.roi == roi]
        is_preferred = ATTRIBUTES["category"] == category
        assert units.shape[1]
        assert units[is_preferred].min() > units[~is_preferred].max()


def test_median_ceiling_is_the_one_asked_for() -> None:
    brain = draw_brain(3000, 0, 0.6, 0)
    assert abs(np.median(brain.ceiling) - 0.6) < 0.02
    assert brain.ceiling.std() > 0.05
