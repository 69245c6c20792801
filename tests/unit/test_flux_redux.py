"""FLUX Redux: tokens through the embedder of Redux, learnt guidance, and its two folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.generator_example import folders, material, predictions, stack, tiny_method

from afterimage.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generator")


KIND = "flux_redux"


def test_guidance_and_the_order_of_tokens(root: Path) -> None:
    known = predictions(KIND)
    first = stack(tiny_method(root, KIND, strength=1.0).reconstruct(known, material(KIND)))
    other = tiny_method(root, KIND, strength=1.0, guidance_scale=9.0)
    assert np.abs(stack(other.reconstruct(known, material(KIND))) - first).max() > 0
    # tokens carry no position of their own: their order says nothing
    turned = known["clip"].reshape(3, 6, 24)[:, ::-1].reshape(3, -1)
    again = tiny_method(root, KIND, strength=1.0).reconstruct(
        known | {"clip": np.ascontiguousarray(turned)}, material(KIND)
    )
    assert np.abs(stack(again) - first).max() <= 1


def test_the_folder_of_redux_is_checked_too(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no diffusers pipeline"):
        tiny_method(root, KIND, redux=str(tmp_path))
    with pytest.raises(ConfigError, match="another architecture") as caught:
        tiny_method(root, KIND, redux=folders(root, KIND)["pipeline"])
    assert "FluxPriorReduxPipeline" in str(caught.value)
