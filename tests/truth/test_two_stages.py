"""Each of the two stages does its own part: without the low level pixels suffer, without the rest meaning.

Brain-Diffuser's ablation (doi:10.1038/s41598-023-42891-8) on a simulated visual brain with the tiny
weights. What limits the second half here: the small generator also sharpens what it is given, and its
embedding knows colour and place, so that pixels lose a little without it, too; they must lose less than
without the low level, and meaning must lose more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afterimage.decoding.mindeye import MindEyeDecoder, MindEyeSettings
from afterimage.decoding.ridge import RidgeDecoder, RidgeSettings
from afterimage.decoding.shared import SubjectData
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


class World:
    """Pictures, their features, and what a simulated visual brain made of them."""

    def __init__(self) -> None:
        self.images, attributes, _ = draw_stimuli(N_TRAIN + N_TEST, 21)
        self.vision, vae = Vision(VisionSettings()), Vae(VaeSettings())
        self.features = {
            "clip": self.vision.encode(list(self.images)),
            "vae": vae.encode(list(self.images)).reshape(len(self.images), -1),
        }
        brain = draw_brain(2500, 160, 0.5, 1)
        signal = respond(brain, self.images, attributes)
        self.train = measure(signal[:N_TRAIN], brain.ceiling, 1)
        test = measure(np.repeat(signal[N_TRAIN:], N_REPEATS, 0), brain.ceiling, 2)
        self.test = test.reshape(N_TEST, N_REPEATS, -1).mean(1)
        self.groups = np.array([f"picture-{i}" for i in range(N_TRAIN)])
        self.known = {name: block[:N_TRAIN] for name, block in self.features.items()}

    def scores(self, method: Any, predicted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Score the pictures that a method makes of decoded features, one number a test picture."""
        material = Material(
            keys=[f"test-{i}" for i in range(N_TEST)], random_state=0,
            shapes={"clip": (128,), "vae": (8, 8, 8)}, training=self.known,
            training_image=lambda index: self.images[index], embed={"clip": self.vision.encode},
        )  # fmt: skip
        pictures = np.stack(method.reconstruct(predicted, material)[0])
        truth = self.images[N_TRAIN:].reshape(N_TEST, -1).astype(float)
        rows = zip(pictures.reshape(N_TEST, -1).astype(float), truth, strict=True)
        centre = self.known["clip"].mean(0)
        own = self.vision.encode(list(pictures)) - centre
        near = np.corrcoef(own, self.features["clip"][N_TRAIN:] - centre)[:N_TEST, N_TEST:]
        return {
            "pixcorr": np.array([np.corrcoef(a, b)[0, 1] for a, b in rows]),
            "twoway": (near < np.diag(near)[:, None]).sum(1) / (N_TEST - 1),
            "top1": (near.argmax(1) == np.arange(N_TEST)).astype(float),
        }


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def both_stages(strength: float | None = None) -> LatentDiffusion:
    """Make the generator; at strength 1 the low-level picture is not looked at."""
    more = {} if strength is None else {"strength": strength}
    return LatentDiffusion(LatentDiffusionSettings(n_candidates=1, **more))


@pytest.mark.slow
def test_low_level_is_for_pixels_and_the_embedding_for_meaning(world: World) -> None:
    # latents whose squared error counts, as their picture is judged by its pixels
    settings = RidgeSettings(keep_shrunk=("pixels", "vae"))
    decoder = RidgeDecoder(settings).fit(world.train, world.known, world.groups)
    predicted = decoder.predict(world.test)
    without = {
        "nothing": both_stages(),
        "low level": both_stages(strength=1.0),
        "embedding": LowLevel(LowLevelSettings()),
    }
    scores = {}
    for name, method in without.items():
        scores[name] = world.scores(method, predicted)
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


@pytest.mark.slow
def test_the_low_level_head_of_mindeye_is_for_pixels(world: World) -> None:
    """MindEye2's own ablation (arXiv:2403.11207): with its low-level head, and fitted without one."""
    predicted, scores = {}, {}
    for name, blocks in (("head", ("clip", "vae")), ("no head", ("clip",))):
        data = SubjectData(world.train, {b: world.known[b] for b in blocks}, world.groups)
        settings = MindEyeSettings(keep_shrunk=("pixels", "vae"), low_level="vae")
        decoder = MindEyeDecoder(settings).fit({"01": data})
        predicted[name] = decoder.predict(world.test)
        judged = decoder.cross_validation_["clip"]
        print(f"{name}: one of {judged['n_candidates']:.0f} found {judged['top1']:.3f}")
        assert set(predicted[name]) == set(blocks)
        if name == "head":
            assert decoder.cross_validation_["vae"]["predicted_by"] == "a head of the network"
    latents = {"vae": np.zeros_like(predicted["head"]["vae"])}  # strength 1 does not look at them
    scores["head"] = world.scores(both_stages(), predicted["head"])
    scores["no head"] = world.scores(both_stages(strength=1.0), predicted["no head"] | latents)
    for name, found in scores.items():
        print(f"{name}:", {key: round(float(v.mean()), 3) for key, v in found.items()})
    lost = {key: scores["head"][key] - scores["no head"][key] for key in scores["head"]}
    print("lost without the head:", {key: bootstrap(values) for key, values in lost.items()})
    # measured: pixels .728 and .670, .030 to .091 less without the head; top-1 of 60 .983 both, two-way
    # .999 and 1.000; one of 90 held-out training pictures found in .967 of trials, both
    assert bootstrap(lost["pixcorr"])[0] > 0.02
    assert abs(lost["twoway"].mean()) < 0.01
    assert bootstrap(lost["top1"])[0] <= 0
