"""A simulated visual brain: Gabor-energy units with receptive fields, and category-selective units.

Identifying natural images from human brain activity (Kay et al. 2008, doi:10.1038/nature06713) for
the units of early visual areas; category-selective cortex as reviewed by Kanwisher 2010
(doi:10.1073/pnas.1005062107).

What differs: receptive fields are drawn at random with sizes that grow with eccentricity; colour
enters through channels tuned to hue (Brouwer and Heeger 2009, doi:10.1523/JNEUROSCI.3577-09.2009),
pooled over the receptive field, beside its luminance; a category-selective unit responds to how
much of its category is in the picture (the drawn category, known exactly), modulated by size and by
position, as in real ventral cortex. Noise is Gaussian, with a variance chosen so that the unit's
noise ceiling (correlation of one trial with its own signal) is the one asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Weights of a receptive field below this are none: products of numbers that small take a hundred
#: times as long.
NOTHING = 1e-30
#: Hue channels around the colour circle.
N_HUES = 8
#: Regions of the early visual areas and of category-selective cortex, with their category.
EARLY = ("V1", "V2", "V4")
SELECTIVE = {
    "FFA": "face",
    "PPA": "place",
    "EBA": "body",
    "VWFA": "word",
    "FoodROI": "food",
    "LOanimal": "animal",
    "LOvehicle": "vehicle",
    "LOtool": "tool",
}


@dataclass(frozen=True)
class VisualBrain:
    """The units of one simulated subject.

    Attributes
    ----------
    roi : array of str, shape (n_units,)
    x, y : array of shape (n_units,)
        Centre of the receptive field, in image widths from the left and top edge.
    size : array of shape (n_units,)
        Standard deviation of the receptive field, in image widths.
    orientation : array of shape (n_units,)
        Preferred orientation, radians.
    frequency : array of shape (n_units,)
        Preferred spatial frequency, cycles an image.
    hue : array of int, shape (n_units,)
        Preferred hue, as the number of its channel (`N_HUES` around the colour circle).
    luminance : array of shape (n_units,)
        Weight of the mean luminance in the receptive field, beside that of the hue, which is 1.
    ceiling : array of shape (n_units,)
        Correlation of one trial with the unit's own signal.
    """

    roi: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    orientation: np.ndarray
    frequency: np.ndarray
    hue: np.ndarray
    luminance: np.ndarray
    ceiling: np.ndarray


def draw_brain(n_early: int, n_selective: int, ceiling: float, random_state: int) -> VisualBrain:
    """Draw the units of one subject; different seeds give different subjects.

    Parameters
    ----------
    n_early, n_selective : int
        Units of the early areas together, and of the category-selective regions together.
    ceiling : float
        Median noise ceiling of the units (0 to 1); single units vary around it.
    random_state : int
    """
    rng = np.random.default_rng(random_state)
    n_units = n_early + n_selective
    regions = np.array(list(SELECTIVE))
    roi = np.concatenate(
        [np.array(EARLY)[rng.integers(0, len(EARLY), n_early)],
         regions[rng.integers(0, len(regions), n_selective)]]
    )  # fmt: skip
    x, y = rng.uniform(0.05, 0.95, (2, n_units))
    eccentricity = np.hypot(x - 0.5, y - 0.5)
    growth = {"V1": 1.0, "V2": 1.5, "V4": 2.2}
    scale = np.array([growth.get(name, 4.0) for name in roi])
    size = (0.035 + 0.06 * eccentricity) * scale * rng.uniform(0.8, 1.25, n_units)
    return VisualBrain(
        roi=roi,
        x=x,
        y=y,
        size=size,
        orientation=rng.uniform(0, np.pi, n_units),
        frequency=rng.choice([4.0, 7.0, 12.0], n_units),
        hue=rng.integers(0, N_HUES, n_units),
        luminance=rng.normal(scale=0.7, size=n_units),
        ceiling=np.clip(rng.normal(ceiling, 0.12, n_units), 0.15, 0.98),
    )


def respond(
    brain: VisualBrain, images: np.ndarray, attributes: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the noise-free responses of all units, each with mean 0 and variance 1 over images.

    Parameters
    ----------
    brain : VisualBrain
    images : array of shape (n, height, width, 3), uint8
    attributes : dict of array
        ``category`` (str), ``x``, ``y`` and ``size`` (image widths) of the drawn object.

    Returns
    -------
    array of shape (n, n_units), float32
    """
    early = np.isin(brain.roi, EARLY)
    signal = np.empty((len(images), len(brain.roi)), dtype=np.float32)
    signal[:, early] = _early_responses(brain, np.flatnonzero(early), images)
    signal[:, ~early] = _selective_responses(brain, np.flatnonzero(~early), attributes)
    return _standard(signal)


def measure(signal: np.ndarray, ceiling: np.ndarray, random_state: int) -> np.ndarray:
    """Add noise to unit-variance signals so that each unit's noise ceiling is ``ceiling``.

    With noise variance ``v`` the correlation of one trial with its signal is ``1 / sqrt(1 + v)``,
    hence ``v = 1 / ceiling**2 - 1``. Half of the noise is shared within neighbours (a smooth
    random mixture), as in real recordings.

    Parameters
    ----------
    signal : array of shape (n_trials, n_units), float32
    ceiling : array of shape (n_units,)
    random_state : int

    Returns
    -------
    array of shape (n_trials, n_units), float32
    """
    rng = np.random.default_rng(random_state)
    n_trials, n_units = signal.shape
    private = rng.standard_normal((n_trials, n_units), dtype=np.float32)
    n_shared = max(1, n_units // 20)
    mixture = rng.standard_normal((n_shared, n_units), dtype=np.float32)
    mixture /= np.linalg.norm(mixture, axis=0)
    shared = rng.standard_normal((n_trials, n_shared), dtype=np.float32) @ mixture
    noise = (private + shared) / np.sqrt(2.0)
    return signal + noise * np.sqrt(1.0 / ceiling**2 - 1.0).astype(np.float32)


def _early_responses(brain: VisualBrain, units: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Gabor energy, hue and luminance within each receptive field, each brought to variance 1."""
    n, height, width, _ = images.shape
    pixels = images.reshape(n, -1, 3).astype(np.float32) / 255.0
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    luminance = 0.3 * red + 0.59 * green + 0.11 * blue  # (n, p)
    opponent = np.stack([red - green, blue - (red + green) / 2])  # (2, n, p)
    column, row = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    responses = np.empty((n, len(units)), dtype=np.float32)
    for channel in range(N_HUES):
        here = np.flatnonzero(brain.hue[units] == channel)
        if not len(here):
            continue
        part = units[here]
        angle = 2 * np.pi * channel / N_HUES
        # Half-wave rectified: a unit tuned to red is silent, not inhibited, for green.
        hue = np.maximum(opponent[0] * np.cos(angle) + opponent[1] * np.sin(angle), 0)
        dx = column.ravel()[None] - brain.x[part, None]
        dy = row.ravel()[None] - brain.y[part, None]
        window = np.exp(-(dx**2 + dy**2) / (2 * brain.size[part, None] ** 2))
        window /= window.sum(axis=1, keepdims=True)  # (u, p)
        window[window < NOTHING] = 0
        tilt = brain.orientation[part, None]
        phase = 2 * np.pi * brain.frequency[part, None] * (dx * np.cos(tilt) + dy * np.sin(tilt))
        even, odd = window * np.cos(phase), window * np.sin(phase)
        even -= window * even.sum(axis=1, keepdims=True)  # blind to the mean luminance
        pair = np.concatenate([even, odd]).astype(np.float32)  # (2 u, p)
        energy = np.sqrt(((luminance @ pair.T).reshape(n, 2, len(part)) ** 2).sum(axis=1))
        pool = window.astype(np.float32).T
        light = brain.luminance[part] * _standard(luminance @ pool)
        responses[:, here] = _standard(energy) + _standard(np.sqrt(hue @ pool)) + light
    return responses


def _standard(values: np.ndarray) -> np.ndarray:
    """Bring every column to mean 0 and variance 1; a column that does not vary becomes 0."""
    centred = values - values.mean(axis=0)
    deviation = centred.std(axis=0)
    standard: np.ndarray = centred / np.where(deviation > 1e-9, deviation, np.inf)
    return standard


def _selective_responses(
    brain: VisualBrain, units: np.ndarray, attributes: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Category times a broad position tuning, scaled by how large the object is."""
    preferred = np.array([SELECTIVE[name] for name in brain.roi[units]])
    is_preferred = attributes["category"].astype(str)[:, None] == preferred[None]
    dx = attributes["x"][:, None] - brain.x[units][None]
    dy = attributes["y"][:, None] - brain.y[units][None]
    position = np.exp(-(dx**2 + dy**2) / (2 * 0.45**2))
    size = attributes["size"][:, None] / attributes["size"].mean()
    return (is_preferred * (0.7 + 0.3 * size * position)).astype(np.float32)
