"""What every registered decoder must do."""

import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest

import afterimage.decoding
from afterimage.decoding.layout import Layout
from afterimage.decoding.registry import DECODERS
from afterimage.errors import InputError

for module in pkgutil.iter_modules(afterimage.decoding.__path__, "afterimage.decoding."):
    importlib.import_module(module.name)

Study = tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]


def study(n: int = 60, n_units: int = 30, n_repeats: int = 1, signal: float = 1.0) -> Study:
    """Plant a linear relation between two blocks of features and noisy responses."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n, 4))
    features = {
        "pixels": hidden @ rng.normal(size=(4, 9)) + 0.1 * rng.normal(size=(n, 9)),
        "clip": hidden @ rng.normal(size=(4, 150)) + 0.1 * rng.normal(size=(n, 150)),
    }
    drive = signal * hidden @ rng.normal(size=(4, n_units))
    responses = np.repeat(drive, n_repeats, 0) + rng.normal(size=(n * n_repeats, n_units))
    repeated = {k: np.repeat(v, n_repeats, 0).astype(np.float32) for k, v in features.items()}
    groups = np.repeat([f"image-{i:03d}" for i in range(n)], n_repeats)
    return responses.astype(np.float32), repeated, groups


def settings_of(name: str) -> Any:
    """Return settings that fit these small studies in seconds."""
    quick = {"n_steps": 100, "evaluate_every": 10, "batch_size": 64}
    is_network = getattr(DECODERS.get(name), "needs_layout", False)
    return DECODERS.settings(name)(**quick if is_network else {})


def make(name: str) -> Any:
    return DECODERS.get(name)(settings_of(name))


def sensors(n_units: int, n_times: int) -> Layout:
    """Sensors on a half sphere, one of them at an unknown place."""
    rng = np.random.default_rng(3)
    positions = rng.normal(size=(n_units, 3))
    positions *= 0.1 / np.linalg.norm(positions, axis=1, keepdims=True)
    positions[:, 2] = np.abs(positions[:, 2])
    positions[-1] = np.nan
    times = np.arange(n_times) / 100
    return Layout(n_units, n_times, times, positions, np.full(n_units, "eeg"), "01")


def correlation(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(
        np.corrcoef((predicted - truth.mean(0)).ravel(), (truth - truth.mean(0)).ravel())[0, 1]
    )


pytestmark = pytest.mark.parametrize("name", DECODERS.names())


@pytest.mark.parametrize(
    ("n", "n_units", "n_repeats"), [(60, 30, 1), (20, 80, 1), (10, 5, 1), (15, 12, 3)]
)
def test_shapes_and_types(name: str, n: int, n_units: int, n_repeats: int) -> None:
    responses, features, groups = study(n, n_units, n_repeats)
    decoder = make(name).fit(responses, features, groups)
    found = decoder.predict(responses[:7])
    assert {k: v.shape for k, v in found.items()} == {"pixels": (7, 9), "clip": (7, 150)}
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in found.values())
    scores = decoder.scores(responses[:7], {k: v[:5] for k, v in features.items()})
    assert scores.shape == (7, 5)
    assert np.isfinite(scores).all()
    for block, report in decoder.cross_validation_.items():
        assert report["r"].shape == report["r2"].shape == (features[block].shape[1],)


def test_one_trial_at_a_time_gives_the_same(name: str) -> None:
    responses, features, groups = study()
    decoder = make(name).fit(responses, features, groups)
    together = decoder.predict(responses[:5])["clip"]
    alone = np.concatenate([decoder.predict(responses[i : i + 1])["clip"] for i in range(5)])
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_a_gallery_that_was_placed_gives_the_same_scores(name: str) -> None:
    if not hasattr(DECODERS.get(name), "placed"):
        pytest.skip("compares with galleries as they are")
    responses, features, groups = study()
    decoder = make(name).fit(responses, features, groups)
    gallery = {block: values[:9] for block, values in features.items()}
    expected = decoder.scores(responses[:5], gallery)
    found = decoder.scores(responses[:5], decoder.placed(gallery))
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())


def test_same_bytes_twice_and_inputs_untouched(name: str) -> None:
    responses, features, groups = study()
    before = responses.copy(), {k: v.copy() for k, v in features.items()}, groups.copy()
    first = make(name).fit(responses, features, groups)
    second = make(name).fit(responses, features, groups)
    for key, value in first.state().items():
        np.testing.assert_array_equal(value, second.state()[key])
    first.predict(responses)
    first.scores(responses, features)
    np.testing.assert_array_equal(responses, before[0])
    np.testing.assert_array_equal(groups, before[2])
    for block, value in features.items():
        np.testing.assert_array_equal(value, before[1][block])


def test_state_round_trip(name: str) -> None:
    responses, features, groups = study()
    decoder = make(name).fit(responses, features, groups)
    state = {key: value.copy() for key, value in decoder.state().items()}
    assert all(isinstance(value, np.ndarray) for value in state.values())
    loaded = DECODERS.get(name).from_state(settings_of(name), state)
    for block, value in decoder.predict(responses).items():
        np.testing.assert_array_equal(loaded.predict(responses)[block], value)
    np.testing.assert_array_equal(
        loaded.scores(responses, features), decoder.scores(responses, features)
    )


def test_planted_signal_is_decoded_and_shuffled_is_not(name: str) -> None:
    responses, features, groups = study(n=120)
    train, test = slice(0, 80), slice(80, None)
    known = {k: v[train] for k, v in features.items()}
    decoder = make(name).fit(responses[train], known, groups[train], held_out=groups[test])
    found = decoder.predict(responses[test])
    gallery = {k: v[test] for k, v in features.items()}
    right = decoder.scores(responses[test], gallery).argmax(1) == np.arange(40)
    assert right.mean() > 0.5
    for block in features:
        assert correlation(found[block], features[block][test]) > 0.8
        assert decoder.cross_validation_[block]["r"].mean() > 0.8
    # one shuffle of four hidden dimensions agrees with the truth by chance now and then
    broken, wrong = [], []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(80)
        shuffled = make(name).fit(responses[train][order], known, groups[train])
        guess = shuffled.predict(responses[test])
        broken.append([correlation(guess[k], features[k][test]) for k in features])
        wrong.append(shuffled.scores(responses[test], gallery).argmax(1) == np.arange(40))
    assert np.abs(np.mean(broken, axis=0)).max() < 0.2
    assert np.mean(wrong) < 0.1


def test_units_scale_and_offset_do_not_matter(name: str) -> None:
    responses, features, groups = study()
    moved = responses * np.linspace(0.01, 100, 30, dtype=np.float32) + 5
    first = make(name).fit(responses, features, groups).predict(responses)["clip"]
    second = make(name).fit(moved, features, groups).predict(moved)["clip"]
    np.testing.assert_allclose(second, first, atol=0.02)


def test_leaks_are_refused(name: str) -> None:
    responses, features, groups = study()
    with pytest.raises(InputError, match="held-out"):
        make(name).fit(responses, features, groups, held_out=[groups[3]])


@pytest.mark.parametrize("broken", ["rows", "nan"])
def test_wrong_inputs_are_named(name: str, broken: str) -> None:
    responses, features, groups = study()
    if broken == "rows":
        features["clip"] = features["clip"][:-1]
    else:
        responses[3, 4] = np.nan
    with pytest.raises(InputError, match=r"do not belong together|not finite"):
        make(name).fit(responses, features, groups)
    good = study()
    decoder = make(name).fit(*good)
    with pytest.raises(InputError, match="units"):
        decoder.predict(good[0][:, :-1])


def test_saved_settings_name_the_method(name: str) -> None:
    assert DECODERS.settings(name)().model_dump()["kind"] == name


def test_decoders_that_need_a_layout_take_it_and_the_others_say_nothing(name: str) -> None:
    method = DECODERS.get(name)
    if not getattr(method, "needs_layout", False):
        assert "layout" not in inspect.signature(method.fit).parameters
        return
    responses, features, groups = study(n=80, n_units=30)
    layout = sensors(10, 3)
    decoder = make(name).fit(responses, features, groups, layout=layout)
    found = decoder.predict(responses, layout=layout)
    assert {k: v.shape for k, v in found.items()} == {"pixels": (80, 9), "clip": (80, 150)}
    scores = decoder.scores(responses, features, layout=layout, subjects=np.repeat("01", 80))
    assert scores.max() <= 1 + 1e-6  # a cosine, or the logarithm of a probability
    assert (scores.argmax(1) == np.arange(80)).mean() > 0.2
    loaded = method.from_state(settings_of(name), decoder.state())
    np.testing.assert_array_equal(loaded.scores(responses, features, layout=layout), scores)
    # as a block of units and times it is the same study
    again = make(name).fit(responses.reshape(80, 10, 3), features, groups, layout=layout)
    np.testing.assert_array_equal(again.scores(responses, features, layout=layout), scores)
    with pytest.raises(InputError, match="units"):
        decoder.predict(responses, layout=sensors(15, 2))
    with pytest.raises(InputError, match="not one the decoder knows"):
        decoder.predict(responses, layout=layout, subjects=np.repeat("02", 80))


def test_retrieval_of_held_out_stimuli_is_reported(name: str) -> None:
    if not getattr(DECODERS.get(name), "needs_layout", False):
        pytest.skip("its summary is of predictions")
    decoder = make(name).fit(*study(n=80))
    summary = decoder.cross_validation_["clip"]
    assert 0 <= summary["top1"] <= summary["top5"] <= 1
    assert summary["n_candidates"] == 8  # a tenth of 80
    assert summary["predicted_by"] in ("regression head", "ridge on the representation")
