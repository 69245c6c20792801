"""What every registered decoder of several subjects must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afterimage.decoding.registry import SHARED_DECODERS
from afterimage.decoding.shared import SubjectData
from afterimage.errors import ConfigError, InputError

SIZES = {"pixels": 9, "vae": 6, "clip": 20}


def study(units: dict[str, int], n: int = 60, seed: int = 0) -> dict[str, SubjectData]:
    """Plant a linear relation between blocks of features and the responses of each subject."""
    rng = np.random.default_rng(seed)
    mixing = {name: rng.normal(size=(4, size)) for name, size in SIZES.items()}
    found = {}
    for label, n_units in units.items():
        hidden = rng.normal(size=(n, 4))
        features = {name: (hidden @ m).astype(np.float32) for name, m in mixing.items()}
        responses = hidden @ rng.normal(size=(4, n_units)) + 0.7 * rng.normal(size=(n, n_units))
        stimuli = np.array([f"{label}-{i:03d}" for i in range(n)])
        regions = np.array(["early", "late"])[np.arange(n_units) % 2]
        found[label] = SubjectData(responses.astype(np.float32), features, stimuli, regions)
    return found


def make(name: str, **more: Any) -> Any:
    quick: dict[str, Any] = {
        "n_steps": 60, "evaluate_every": 20, "batch_size": 60, "adaptation_steps": 60,
        "n_hidden": 32, "n_blocks": 1, "weight_decay": 0.01, "dropout": 0.0, "ema_decay": 0.9,
        "learning_rate": 5e-3, "adaptation_learning_rate": 5e-3,
    }  # fmt: skip
    settings = SHARED_DECODERS.settings(name)
    small = {
        "n_common": 16, "n_bottleneck": 4, "prior_hidden": 16, "prior_layers": 1,
        "prior_heads": 2, "prior_steps": 3, "dropout_embedder": 0.0, "n_token": 8,
    }  # fmt: skip
    quick |= {key: value for key, value in small.items() if key in settings.model_fields}
    return SHARED_DECODERS.get(name)(settings(**quick | more))


def first(data: SubjectData, n: int) -> SubjectData:
    return data.only(np.arange(n))


def held(data: SubjectData, start: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Responses and features of the last trials."""
    return data.responses[start:], {k: v[start:] for k, v in data.features.items()}


pytestmark = pytest.mark.parametrize("name", SHARED_DECODERS.names())


def test_subjects_with_different_units_share_one_model(name: str) -> None:
    people = study({"01": 30, "02": 21, "train": 12})
    before = {label: data.responses.copy() for label, data in people.items()}
    training = {label: first(people[label], 45) for label in ("01", "02")}
    decoder = make(name).fit(training)
    assert decoder.subjects == ["01", "02"]
    assert set(decoder.cross_validation_) == set(SIZES)
    summary = decoder.cross_validation_["clip"]
    assert 0 <= summary["top1"] <= summary["top5"] <= 1
    for label in ("01", "02"):
        responses, truth = held(people[label], 45)
        found = decoder.predict(responses, label)
        assert {k: v.shape for k, v in found.items()} == {k: (15, n) for k, n in SIZES.items()}
        assert all(v.dtype == np.float32 for v in found.values())
        for block in SIZES:
            r = np.corrcoef(found[block].ravel(), truth[block].ravel())[0, 1]
            assert r > 0.6, (label, block)
        scores = decoder.scores(responses, truth, label)
        assert (scores.argmax(1) == np.arange(15)).mean() > 0.4
        alone = np.concatenate(
            [decoder.predict(responses[i : i + 1], label)["clip"] for i in range(3)]
        )
        np.testing.assert_allclose(alone, found["clip"][:3], atol=1e-4)
    # a new one is added, and the old ones are what they were
    old = decoder.predict(held(people["01"], 45)[0], "01")["clip"]
    decoder.adapt("train", first(people["train"], 45))
    responses, truth = held(people["train"], 45)
    found = decoder.predict(responses, "train")
    assert np.corrcoef(found["clip"].ravel(), truth["clip"].ravel())[0, 1] > 0.4
    np.testing.assert_array_equal(decoder.predict(held(people["01"], 45)[0], "01")["clip"], old)
    for label, values in before.items():
        np.testing.assert_array_equal(people[label].responses, values)
    # whole, or shared part and one subject's: the same decoder
    parts = decoder.shared_state() | decoder.state("train")
    for state in (decoder.state(), parts):
        loaded = type(decoder).from_state(decoder.settings, state)
        np.testing.assert_array_equal(loaded.predict(responses, "train")["vae"], found["vae"])
        np.testing.assert_array_equal(
            loaded.scores(responses, truth, "train"), decoder.scores(responses, truth, "train")
        )
    with pytest.raises(InputError, match="takes a new subject"):
        decoder.adapt("train", people["train"])


def test_same_bytes_twice_and_after_an_interruption(name: str, tmp_path: Any) -> None:
    people = study({"01": 8, "02": 11}, n=30)
    whole = make(name, n_steps=8).fit(people)

    def stop(step: int, _loss: float) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(name, n_steps=8).fit(people, checkpoint_folder=tmp_path, on_progress=stop)
    again = make(name, n_steps=8).fit(people, checkpoint_folder=tmp_path)
    for other in (again, make(name, n_steps=8).fit(study({"9": 5}, n=20)).fit(people)):
        assert list(other.state()) == list(whole.state())
        for key, value in whole.state().items():
            np.testing.assert_array_equal(value, other.state()[key])


def test_features_on_disk_give_the_same_bytes(name: str, tmp_path: Any) -> None:
    people = study({"01": 8, "02": 11, "03": 6}, n=30)
    made: list[str] = []

    def on_disk(block: str, shape: tuple[int, ...]) -> np.ndarray:
        made.append(block)
        path = tmp_path / f"{len(made)}.npy"
        return np.lib.format.open_memmap(path, "w+", np.float32, shape)

    few = {label: people[label] for label in ("01", "02")}
    decoders = [make(name, n_steps=8), make(name, n_steps=8)]
    for decoder, options in zip(decoders, ({}, {"allocate": on_disk}), strict=True):
        decoder.fit(few, **options).adapt("03", people["03"], **options)
    whole, read = (decoder.state() for decoder in decoders)
    assert {f"features/{block}" for block in SIZES} <= set(made)
    assert list(read) == list(whole)
    for key, value in whole.items():
        np.testing.assert_array_equal(value, read[key])
        assert type(read[key]) is np.ndarray  # nothing of the files is left in it


def test_scale_and_offset_of_units_do_not_matter(name: str) -> None:
    people = study({"01": 30})
    data = people["01"]
    moved = data.responses * np.linspace(0.01, 100, 30, dtype=np.float32) + 5
    one = make(name, n_steps=20).fit(people).predict(data.responses)["clip"]
    other = SubjectData(moved, data.features, data.stimuli, data.regions)
    two = make(name, n_steps=20).fit({"01": other}).predict(moved)["clip"]
    np.testing.assert_allclose(two, one, atol=0.05)


def test_what_cannot_work_is_refused_by_name(name: str) -> None:
    people = study({"01": 8, "02": 9}, n=30)
    with pytest.raises(InputError, match="held-out"):
        make(name).fit(people, held_out=["02-004"])
    short = {k: v[:-1] for k, v in people["02"].features.items()}
    broken = SubjectData(people["02"].responses, short, people["02"].stimuli)
    with pytest.raises(InputError, match=r"subject 02[\s\S]*one row a trial"):
        make(name).fit({**people, "02": broken})
    fewer = SubjectData(people["02"].responses, {"clip": people["02"].features["clip"]},
                        people["02"].stimuli)  # fmt: skip
    with pytest.raises(InputError, match="same feature blocks"):
        make(name).fit({**people, "02": fewer})
    with pytest.raises(ConfigError, match="target"):
        make(name, target="dino").fit(people)
    with pytest.raises(InputError, match="without subjects"):
        make(name).fit({})
    decoder = make(name, n_steps=2).fit(people)
    with pytest.raises(InputError, match="units"):
        decoder.predict(people["01"].responses[:, :-1], "01")
    with pytest.raises(InputError, match="not one the decoder knows"):
        decoder.predict(people["01"].responses)
    with pytest.raises(InputError, match="not one the decoder knows"):
        decoder.predict(people["01"].responses, "03")


def test_saved_settings_name_the_method(name: str) -> None:
    assert SHARED_DECODERS.settings(name)().model_dump()["kind"] == name
