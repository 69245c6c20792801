"""Decoders against each other: hand-worked differences, Holm over all questions, no mixing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test

from afterimage.evaluation.decoder_comparison import (
    NO_DIFFERENCE,
    NOT_COMPARABLE,
    compare_over_images,
    compare_over_people,
    sign_flip_p,
)
from afterimage.evaluation.metrics import protocol
from afterimage.evaluation.statistics import holm, paired_bootstrap_difference

TEXT = protocol(size="native size", n=60, repeats="averaged", selection="one sample")


def row(decoder: str, metric: str, subject: str = "01", value: float = 0.0, **changes):
    return {
        "subject": subject, "label": f"{decoder}Low", "decoder": decoder, "method": "low",
        "role": "reconstruction", "metric": metric, "value": value, "protocol": TEXT,
    } | changes  # fmt: skip


def study(shift: float, n: int = 60):
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, n)  # pictures differ far more than decoders do
    per_image = {
        "ridgeLow": {"pixcorr": hard, "mse": hard + 5, "ssim": rng.normal(0, 1, n)},
        "netLow": {
            "pixcorr": hard + shift + rng.normal(0, 0.05, n),
            "mse": hard + 5 + rng.normal(0, 0.05, n),
            "ssim": rng.normal(0, 1, n),
        },
    }
    rows = [
        row(name, metric) for name in ("ridge", "net") for metric in ("pixcorr", "mse", "ssim")
    ]
    return rows, per_image


def test_the_winner_is_named_with_its_paired_interval() -> None:
    rows, per_image = study(0.1)
    found = {r["metric"]: r for r in compare_over_images(rows, per_image, n_bootstraps=4000)}
    own = found["pixcorr"]
    difference = per_image["ridgeLow"]["pixcorr"] - per_image["netLow"]["pixcorr"]
    assert own["difference"] == pytest.approx(difference.mean())
    alone = paired_bootstrap_difference(
        per_image["ridgeLow"]["pixcorr"], per_image["netLow"]["pixcorr"], n_bootstraps=4000
    )
    assert (own["ci_low"], own["ci_high"]) == pytest.approx((alone.low, alone.high))
    assert own["p"] == alone.p == 2 / 4001
    assert own["winner"] == "net" and own["ci_high"] < 0
    assert {found[name]["winner"] for name in ("mse", "ssim")} == {NO_DIFFERENCE}
    corrected = holm([found[name]["p"] for name in ("pixcorr", "mse", "ssim")])
    assert [found[name]["p_holm"] for name in ("pixcorr", "mse", "ssim")] == pytest.approx(
        corrected
    )
    assert {r["n_tests"] for r in found.values()} == {3}


def test_less_is_better_for_errors() -> None:
    rows, per_image = study(0.0)
    per_image["netLow"]["mse"] = per_image["ridgeLow"]["mse"] - 0.3
    found = {r["metric"]: r for r in compare_over_images(rows, per_image)}
    assert found["mse"]["difference"] == pytest.approx(0.3) and found["mse"]["winner"] == "net"


def test_equal_decoders_win_no_more_often_than_they_may() -> None:
    rng = np.random.default_rng(1)
    names = [f"twoway_{i}" for i in range(8)]
    wins = 0
    for seed in range(100):
        per_image = {
            label: {name: rng.normal(0, 1, 40) for name in names} for label in ("aLow", "bLow")
        }
        rows = [row(decoder, name) for decoder in "ab" for name in names]
        found = compare_over_images(rows, per_image, n_bootstraps=2000, random_state=seed)
        wins += any(r["winner"] != NO_DIFFERENCE for r in found)
    assert wins <= 12  # 5 % of 100 studies, and three standard deviations; without Holm some 34


def test_two_protocols_are_not_subtracted() -> None:
    rows, per_image = study(0.5)
    rows[3]["protocol"] = TEXT + "; transductive"
    found = {r["metric"]: r for r in compare_over_images(rows, per_image)}
    assert found["pixcorr"]["winner"] == NOT_COMPARABLE and found["pixcorr"]["difference"] is None
    assert "transductive" in found["pixcorr"]["protocol"] and " | " in found["pixcorr"]["protocol"]
    assert found["mse"]["n_tests"] == 2


@pytest.mark.parametrize("values", [[0.3, 0.1, 0.4, 0.2], [0.3, -0.1, 0.4, -0.25, 0.05, 0.1]])
def test_sign_flips_are_those_of_scipy(values) -> None:
    expected = permutation_test(
        (values,), lambda x: np.abs(np.sum(x)), permutation_type="samples", n_resamples=np.inf,
        alternative="greater",
    ).pvalue  # fmt: skip
    assert sign_flip_p(np.array(values)) == pytest.approx(expected)


def test_people_are_paired_and_two_protocols_stay_apart() -> None:
    people = [f"{i:02d}" for i in range(8)]
    rng = np.random.default_rng(0)
    hard = rng.normal(0.6, 0.2, 8)
    rows = []
    for name, base in zip(people, hard, strict=True):
        rows.append(row("ridge", "pixcorr", name, base))
        rows.append(row("net", "pixcorr", name, base + 0.05 + 0.01 * rng.random()))
    rows += [
        row("net", "pixcorr", "01", 9.0, protocol="mindeye2; resized; n=60; repeats averaged")
    ]
    (found,) = compare_over_people(rows)
    assert found["n"] == 8 and found["winner"] == "net" and found["p"] == 2 / 2**8
    assert found["ci_low"] <= found["difference"] <= found["ci_high"] < -0.05
    two = compare_over_people([r for r in rows if r["subject"] in ("00", "01")])
    assert two[0]["winner"] == NO_DIFFERENCE and two[0]["p"] == 0.5
