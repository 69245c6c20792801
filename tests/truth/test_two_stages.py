"""Each of the two stages does its own part: without the low level pixels suffer, without the rest meaning.

Brain-Diffuser's ablation (doi:10.1038/s41598-023-42891-8) on a simulated visual brain with the tiny
weights. What limits the second half here: the small generator also sharpens what it is given, and its
embedding knows colour and place, so that pixels lose a little without it, too; they must lose less than
without the low level, and meaning must lose more.
"""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.decoding.ridge import RidgeDecoder, RidgeSettings
from afterimage.features.vae import Vae, VaeSettings
from afterimage.features.vision import Vision, VisionSettings
from afterimage.reconstruction.latent_diffusion import LatentDiffusion, LatentDiffusionSettings
from afterimage.reconstruction.low_level import LowLevel, LowLevelSettings
from afterimage.reconstruction.registry import Material
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.simulate.visual_brain import draw_brain, measure, respond

N_TRAIN, N_TEST, N_REPEATS = 900, 60, 4


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    draws = np.random.default_rng(0).integers(0, len(values), (5000, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.slow
def test_low_level_is_for_pixels_and_the_embedding_for_meaning() -> None:
    images, attributes, _ = draw_stimuli(N_TRAIN + N_TEST, 21)
    vision, vae = Vision(VisionSettings()), Vae(VaeSettings())
    features = {
        "clip": vision.encode(list(images)),
        "vae": vae.encode(list(images)).reshape(len(images), -1),
    }
    brain = draw_brain(2500, 160, 0.5, 1)
    signal = respond(brain, images, attributes)
    train = measure(signal[:N_TRAIN], brain.ceiling, 1)
    test = measure(np.repeat(signal[N_TRAIN:], N_REPEATS, 0), brain.ceiling, 2)
    test = test.reshape(N_TEST, N_REPEATS, -1).mean(1)
    groups = np.array([f"picture-{i}" for i in range(N_TRAIN)])
    known = {name: block[:N_TRAIN] for name, block in features.items()}
    # latents whose squared error counts, as their picture is judged by its pixels
    settings = RidgeSettings(keep_shrunk=("pixels", "vae"))
    predicted = RidgeDecoder(settings).fit(train, known, groups).predict(test)
    material = Material(
        keys=[f"test-{i}" for i in range(N_TEST)], random_state=0,
        shapes={"clip": (128,), "vae": (8, 8, 8)}, training=known,
        training_image=lambda index: images[index], embed={"clip": vision.encode},
    )  # fmt: skip
    both = LatentDiffusion(LatentDiffusionSettings(n_candidates=1))
    without = {
        "nothing": both,
        "low level": LatentDiffusion(LatentDiffusionSettings(n_candidates=1, strength=1.0)),
        "embedding": LowLevel(LowLevelSettings()),
    }
    centre = known["clip"].mean(0)
    truth = images[N_TRAIN:].reshape(N_TEST, -1).astype(float)
    scores = {}
    for name, method in without.items():
        pictures = np.stack(method.reconstruct(predicted, material)[0])
        rows = zip(pictures.reshape(N_TEST, -1).astype(float), truth, strict=True)
        pixcorr = np.array([np.corrcoef(a, b)[0, 1] for a, b in rows])
        own = vision.encode(list(pictures)) - centre
        near = np.corrcoef(own, features["clip"][N_TRAIN:] - centre)[:N_TEST, N_TEST:]
        right = np.diag(near)[:, None]
        scores[name] = {
            "pixcorr": pixcorr,
            "twoway": (near < right).sum(1) / (N_TEST - 1),
            "top1": (near.argmax(1) == np.arange(N_TEST)).astype(float),
        }
        print(f"without {name}:", {k: round(float(v.mean()), 3) for k, v in scores[name].items()})
    lost = {
        name: {key: scores["nothing"][key] - scores[name][key] for key in scores[name]}
        for name in ("low level", "embedding")
    }
    for name, losses in lost.items():
        print(f"lost without {name}:", {k: bootstrap(v) for k, v in losses.items()})
    # measured: pixels .743, .672 without the low level, .688 without the embedding;
    # top-1 of 60 .983, .950 and .917; two-way 1.000, .999 and .997
    assert bootstrap(lost["low level"]["pixcorr"])[0] > 0.03
    assert abs(lost["low level"]["twoway"].mean()) < 0.01
    assert bootstrap(lost["embedding"]["twoway"])[0] > 0
    assert bootstrap(lost["embedding"]["top1"])[0] > 0
    # each stage costs most where it belongs
    assert lost["low level"]["pixcorr"].mean() > lost["embedding"]["pixcorr"].mean()
    for key in ("twoway", "top1"):
        assert lost["embedding"][key].mean() > lost["low level"][key].mean()
