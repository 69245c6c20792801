"""What every registered masked model must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterimage.errors import InputError
from afterimage.pretraining.masked_model import Prepared, prepare
from afterimage.pretraining.registry import MASKED_MODELS
from afterimage.simulate.region_series import module_series

NAMES = MASKED_MODELS.names()


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name: str, **more: Any) -> Any:
    quick = {"n_steps": 6, "segment_volumes": 10, "n_segments": 6, "n_features": 16,
             "n_heads": 2, "n_layers": 1, "batch_size": 4, "warmup_steps": 5}  # fmt: skip
    return MASKED_MODELS.get(name)(MASKED_MODELS.settings(name)(**(quick | more)))


def recordings(n: int = 8, n_times: int = 90, seed: int = 0) -> list[Prepared]:
    series, _ = module_series(
        n, n_times=n_times, n_regions=9, n_modules=3, loading=0.9, random_state=seed
    )
    return [prepare(one) for one in series]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["signal", "ema-latent"])
def test_loss_falls_and_embeddings_are_finite(name: str, target: str) -> None:
    model = make(name, target=target, n_steps=50, learning_rate=5e-3).fit(recordings())
    assert np.isfinite(model.losses_).all()
    assert model.losses_[-10:].mean() < model.losses_[:10].mean()
    embedded = model.encode(recordings(4, seed=1))
    assert embedded.shape == (4, 256 if name == "graph_mae" else 16)
    assert np.isfinite(embedded).all()
    assert embedded.std(0).max() > 1e-4  # latents have not collapsed to a point


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(name: str) -> None:
    first, second = (make(name).fit(recordings()) for _ in range(2))
    other = make(name, random_state=1).fit(recordings())
    for key, array in first.state()[0].items():
        assert np.array_equal(array, second.state()[0][key]), key
    assert not np.array_equal(first.encode(recordings()), other.encode(recordings()))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_makes_the_same_model(name: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    model = make(name).fit(recordings())
    arrays, card = model.state()
    save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, tmp_path / "m.safetensors")
    again = MASKED_MODELS.get(name).from_state(load_file(tmp_path / "m.safetensors"), card)
    assert again.settings == model.settings
    assert np.array_equal(again.encode(recordings()), model.encode(recordings()))


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    whole = make(name, n_steps=9, checkpoint_every=3, batch_size=2).settings

    def stop(step: int, _loss: float) -> None:
        if step == 8:
            raise KeyboardInterrupt

    few = recordings(4, 60)
    expected = MASKED_MODELS.get(name)(whole).fit(few)
    with pytest.raises(KeyboardInterrupt):
        MASKED_MODELS.get(name)(whole).fit(few, checkpoint_folder=tmp_path, on_progress=stop)
    steps: list[int] = []
    resumed = MASKED_MODELS.get(name)(whole).fit(
        few, checkpoint_folder=tmp_path, on_progress=lambda step, _: steps.append(step)
    )
    assert steps[0] == 7
    for key, array in expected.state()[0].items():
        assert np.array_equal(array, resumed.state()[0][key]), key


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_left_alone(name: str) -> None:
    given = recordings()
    before = [one.series.copy() for one in given]
    model = make(name).fit(given)
    model.encode(given)
    model.fill_in(given, 0)
    for one, values in zip(given, before, strict=True):
        assert np.array_equal(one.series, values)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_filled_in_has_its_form(name: str) -> None:
    model = make(name).initialise(9)
    for one in model.fill_in(recordings(3), 0):
        if model.fills == "samples":
            assert one.tokens.shape == one.predicted.shape == (9, 9, 10)
            assert one.hidden.shape == one.known.shape == (9, 9)
            assert one.hidden.any()
            assert not one.hidden.all()
        else:
            assert one.tokens.shape[1:] == (4, 36)
            assert one.predicted.shape == (len(one.tokens), 36)
    first, again = (model.fill_in(recordings(3), 0)[2].predicted for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("name", NAMES)
def test_censored_volumes_do_not_matter(name: str) -> None:
    series, _ = module_series(1, n_times=90, n_regions=9, n_modules=3, random_state=0)
    kept = np.ones(90, bool)
    kept[33:36] = False
    wild = series[0].copy()
    wild[33:36] = 1e4
    model = make(name).initialise(9)
    clean, spoiled = (model.encode([prepare(one, kept)]) for one in (series[0], wild))
    np.testing.assert_allclose(clean, spoiled, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="too short"):
        make(name).fit(recordings(3, n_times=12))
    with pytest.raises(InputError, match="differ in their regions"):
        series = np.random.default_rng(0).standard_normal((90, 4))
        make(name).fit([*recordings(2), prepare(series)])
    with pytest.raises(InputError, match="differ in their regions"):
        make(name).fit([])
    series[5] = np.nan
    with pytest.raises(InputError, match="cannot be learned from") as caught:
        prepare(series)
    assert caught.value.exit_code == 65
    with pytest.raises(InputError, match="cannot be learned from"):
        prepare(np.ones((90, 4)), np.zeros(90, bool))
    constant = np.random.default_rng(0).standard_normal((90, 9))
    constant[:, 2] = 5.0
    assert np.isfinite(make(name).initialise(9).encode([prepare(constant)])).all()
