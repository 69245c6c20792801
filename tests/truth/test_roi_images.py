"""Pictures of the planted face region are faces; those of as many units drawn at random are not."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.decoding.registry import DECODERS
from afterimage.decoding.roi_patterns import region_masks, roi_optimal_features
from afterimage.features.vae import Vae, VaeSettings
from afterimage.features.vision import Vision, VisionSettings
from afterimage.reconstruction.latent_diffusion import LatentDiffusion, LatentDiffusionSettings
from afterimage.reconstruction.registry import Material
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.simulate.visual_brain import draw_brain, measure, respond

N_IMAGES, N_SHUFFLES, N_IMAGES_SHUFFLED = 25, 16, 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ridge", "brain_diffuser"])
def test_the_face_region_shows_faces(kind: str) -> None:
    from sklearn.linear_model import LogisticRegression

    vision, vae = Vision(VisionSettings()), Vae(VaeSettings())
    known, about, _ = draw_stimuli(600, 12)  # other pictures than the study's
    probe = LogisticRegression(max_iter=2000).fit(vision.encode(list(known)), about["category"])
    images, attributes, _ = draw_stimuli(900, 11)
    features = {
        "clip": vision.encode(list(images)),
        "vae": vae.encode(list(images)).reshape(900, -1),
    }
    assert probe.score(features["clip"], attributes["category"]) > 0.98
    brain = draw_brain(700, 160, 0.75, 1)
    responses = measure(respond(brain, images, attributes), brain.ceiling, 1)
    groups = np.array([f"picture-{i}" for i in range(900)])
    decoder = DECODERS.get(kind)(DECODERS.settings(kind)()).fit(responses, features, groups)
    painter = LatentDiffusion(LatentDiffusionSettings(n_candidates=1))

    def faces(mask: np.ndarray, n_images: int, name: str) -> float:
        optimal = roi_optimal_features(
            decoder.predict, responses.mean(0), responses.std(0), {"FFA": mask}, features
        )
        material = Material(
            keys=[f"{name} {i}" for i in range(n_images)], random_state=0,
            shapes={"clip": (128,), "vae": (8, 8, 8)}, training={},
            training_image=lambda index: images[index], embed={"clip": vision.encode},
        )  # fmt: skip
        rows = {name: np.repeat(values, n_images, 0) for name, values in optimal.items()}
        pictures, _ = painter.reconstruct(rows, material)
        return float((probe.predict(vision.encode(pictures)) == "face").mean())

    mask = region_masks(brain.roi)["FFA"]
    found = faces(mask, N_IMAGES, "FFA")
    rng = np.random.default_rng(0)
    shuffled = [
        faces(rng.permutation(mask), N_IMAGES_SHUFFLED, f"shuffle {i}") for i in range(N_SHUFFLES)
    ]
    print(f"{kind}: faces {found:.2f} of {N_IMAGES}; shuffled {np.mean(shuffled):.2f}")
    assert found >= 0.8
    assert np.mean(shuffled) < 0.35  # chance is one in eight; one draw is all faces or none
