"""Kandinsky 2.2: guidance away from the embedding of no picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.generator_example import N, material, predictions, stack, tiny_method

from afterimage.reconstruction.generator import NO_PICTURE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generator")


KIND = "kandinsky"


def test_guidance_turns_away_from_the_embedding_of_no_picture(root: Path) -> None:
    asked: list[int] = []
    inner = material(KIND).embed["clip"]

    def embed(images: list[np.ndarray]) -> np.ndarray:
        asked.extend(id(image) for image in images if image is NO_PICTURE)
        return inner(images)

    known = predictions(KIND)
    made = [
        stack(
            tiny_method(root, KIND, guidance_scale=scale, strength=1.0).reconstruct(
                known, material(KIND, embed={"clip": embed})
            )
        )
        for scale in (1.5, 6.0)
    ]
    assert len(asked) == 2
    assert np.abs(made[0] - made[1]).mean() > 0.2
    # a prediction that is the embedding of no picture is guided nowhere
    nothing = np.repeat(inner([NO_PICTURE]), N, axis=0)
    same = [
        stack(
            tiny_method(root, KIND, guidance_scale=scale, strength=1.0).reconstruct(
                known | {"clip": nothing}, material(KIND)
            )
        )
        for scale in (1.5, 6.0)
    ]
    assert np.abs(same[0] - same[1]).max() <= 1
