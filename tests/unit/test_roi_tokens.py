"""Region tokens: each reads its own units only, hidden ones are not looked at, unknown ones ignored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from afterimage.decoding.roi_tokens import RoiTokensDecoder, RoiTokensSettings
from afterimage.decoding.shared import SubjectData
from afterimage.errors import InputError


def person(label: str, regions: list[str], n: int = 120, seed: int = 0) -> SubjectData:
    """Region "V1" carries the target and the others nothing."""
    rng = np.random.default_rng((seed, len(label), len(regions)))
    code = rng.normal(size=(n, 3))
    mixing = np.random.default_rng(5).normal(size=(3, 6))
    responses = 0.3 * rng.normal(size=(n, len(regions)))
    own = np.array(regions) == "V1"
    responses[:, own] += code @ rng.normal(size=(3, int(own.sum())))
    features = {"clip": (code @ mixing).astype(np.float32)}
    stimuli = np.array([f"{label}-{i}" for i in range(n)])
    return SubjectData(responses.astype(np.float32), features, stimuli, np.array(regions))


def fitted(**more: Any) -> RoiTokensDecoder:
    settings = RoiTokensSettings(
        n_steps=150, n_hidden=32, n_token=8, n_blocks=1, batch_size=60, learning_rate=1e-2,
        weight_decay=0.01, evaluate_every=50, temperature=0.5, **more,
    )  # fmt: skip
    people = {
        "1": person("1", ["V1"] * 8 + ["V4"] * 5 + ["FFA"] * 4),
        "2": person("22", ["V4"] * 6 + ["V1"] * 9),
    }
    training = {label: data.only(np.arange(80)) for label, data in people.items()}
    return RoiTokensDecoder(settings).fit(training)


def r(decoder: RoiTokensDecoder, data: SubjectData, subject: str) -> float:
    """Correlation on trials that were not fitted on."""
    found = decoder.predict(data.responses[80:], subject)["clip"]
    return float(np.corrcoef(found.ravel(), data.features["clip"][80:].ravel())[0, 1])


def test_what_is_lost_with_a_region_says_where_the_information_was() -> None:
    decoder = fitted()
    assert decoder.regions == ["FFA", "V1", "V4"]
    rows = person("1", ["V1"] * 8 + ["V4"] * 5 + ["FFA"] * 4)
    whole = r(decoder, rows, "1")
    assert whole > 0.7
    assert r(decoder.without(["V4", "FFA"]), rows, "1") > whole - 0.15
    assert abs(r(decoder.without(["V1"]), rows, "1")) < 0.3
    with pytest.raises(InputError, match="does not know"):
        decoder.without(["MT"])


def test_tokens_read_their_own_units_and_hidden_ones_none() -> None:
    decoder = fitted(weight_fill=0.0)
    model = decoder._model
    values = torch.randn(4, 17)
    tokens = model.layers("1")(values)
    moved = values.clone()
    moved[:, :8] += 1  # V1
    changed = (model.layers("1")(moved) - tokens).abs().amax((0, 2)) > 1e-6
    assert changed.tolist() == [False, True, False]
    hidden = decoder.without(["V1"])._model
    with torch.inference_mode():
        torch.testing.assert_close(hidden.enter(moved, "1"), hidden.enter(values, "1"))


def test_a_new_subject_may_lack_regions_and_have_others() -> None:
    decoder = fitted()
    new = person("333", ["V1"] * 7 + ["MT"] * 3)
    decoder.adapt("3", new)
    assert decoder.regions == ["FFA", "V1", "V4"]
    assert decoder.state()["unit_region/3"].tolist() == [1.0] * 7 + [-1.0] * 3
    before = decoder.predict(new.responses, "3")["clip"]
    moved = new.responses.copy()
    moved[:, 7:] += 3  # a region that has no token
    np.testing.assert_array_equal(decoder.predict(moved, "3")["clip"], before)


def test_half_of_the_regions_are_hidden_and_never_all() -> None:
    model = fitted()._model
    torch.manual_seed(0)
    drawn = model._drawn(2000, torch.device("cpu"))
    assert drawn.any(1).all()
    assert float(drawn.float().mean()) == pytest.approx(0.5 + 0.125 / 3, abs=0.02)
    cut = model._cut(2000, torch.device("cpu")).sum(1)
    assert set(cut.tolist()) == {1.0, 2.0, 4.0, 8.0}
