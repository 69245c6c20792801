"""The table has the promised columns, and its numbers are those of the metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.evaluation.identification import retrieval, similarity, two_way
from afterimage.evaluation.images import mse, pixcorr, ssim
from afterimage.evaluation.scores import (
    COLUMNS,
    METRICS,
    ReconstructionSet,
    Resampling,
    describe,
    image_rows,
    prediction_rows,
    protocol,
    reconstruction_rows,
)

QUICK = Resampling(n_bootstraps=200, n_permutations=199)


def study(n: int = 20, seed: int = 0):
    generator = np.random.default_rng(seed)
    truth = generator.random((n, 16, 16, 3)).astype(np.float32)
    embed = generator.standard_normal((16 * 16 * 3, 12))

    def encode(images):
        return {"clip": images.reshape(len(images), -1) @ embed, "pixels": images}

    def one(label, role, weight, ceiling=""):
        noise = generator.random(truth.shape).astype(np.float32)
        images = weight * truth + (1 - weight) * noise
        return ReconstructionSet(
            label=label,
            decoder="ridge",
            method="low_level",
            role=role,
            images=images,
            embeddings=encode(images),
            ceiling=ceiling,
            selection="best-of-4 by predicted embedding",
        )

    sets = [
        one("ridgeLowLevel", "reconstruction", 0.5, "ceilingLowLevel"),
        one("shuffledBrainLowLevel", "audit", 0.0, "ceilingLowLevel"),
        one("ceilingLowLevel", "ceiling", 0.9),
    ]
    return truth, encode(truth), sets


def pick(scores, label, metric):
    return next(r for r in scores.rows if (r["label"], r["metric"]) == (label, metric))


def test_rows_hold_the_metrics_and_all_columns() -> None:
    truth, embeddings, sets = study()
    scores = reconstruction_rows(truth, embeddings, sets, subject="01", resampling=QUICK)
    assert all(tuple(row) == COLUMNS for row in scores.rows)
    names = [r["metric"] for r in scores.rows if r["label"] == "ridgeLowLevel"]
    assert names == [
        *("pixcorr", "mse", "ssim"),
        *("twoway_clip", "rank_clip", "retrieval_top1_clip", "retrieval_top5_clip"),
        *("twoway_pixels", "rank_pixels", "retrieval_top1_pixels", "retrieval_top5_pixels"),
    ]
    rank, twoway = (
        pick(scores, "ridgeLowLevel", f"{n}_clip")["value"] for n in ("rank", "twoway")
    )
    assert rank == pytest.approx(1 - twoway)
    one = sets[0]
    matrix = similarity(one.embeddings["clip"], embeddings["clip"])
    for name, values in {
        "pixcorr": pixcorr(truth, one.images),
        "mse": mse(truth, one.images),
        "ssim": ssim(truth, one.images),
        "twoway_clip": two_way(matrix),
        "retrieval_top5_clip": retrieval(matrix, 5),
    }.items():
        row = pick(scores, "ridgeLowLevel", name)
        assert row["value"] == pytest.approx(values.mean(), abs=1e-12)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["chance_low"] <= row["chance"] <= row["chance_high"]
        assert row["n"] == 20
        np.testing.assert_allclose(scores.per_image["ridgeLowLevel"][name], values)
    json.dumps(scores.rows, allow_nan=False)


def test_signal_is_significant_on_the_right_side_and_shuffled_is_not() -> None:
    truth, embeddings, sets = study(40)
    scores = reconstruction_rows(truth, embeddings, sets, subject="01", resampling=QUICK)
    for name in ("pixcorr", "mse", "ssim", "twoway_clip", "retrieval_top1_pixels"):
        assert pick(scores, "ridgeLowLevel", name)["p"] == 1 / 200, name
        assert pick(scores, "shuffledBrainLowLevel", name)["p"] > 0.01, name


def test_ceiling_is_the_metric_of_the_ceiling_set() -> None:
    truth, embeddings, sets = study()
    scores = reconstruction_rows(truth, embeddings, sets, subject="01", resampling=QUICK)
    ceiling = pick(scores, "ceilingLowLevel", "ssim")
    assert pick(scores, "ridgeLowLevel", "ssim")["ceiling"] == ceiling["value"]
    assert ceiling["ceiling"] is None


def test_protocol_says_how_the_number_was_made() -> None:
    truth, embeddings, sets = study(10)
    scores = reconstruction_rows(truth, embeddings, sets, subject="01", resampling=QUICK)
    assert pick(scores, "ridgeLowLevel", "twoway_clip")["protocol"] == (
        "afterimage-1; native size; n=10; brain_to_image; gallery=10; repeats averaged; "
        "best-of-4 by predicted embedding"
    )
    assert pick(scores, "ridgeLowLevel", "ssim")["protocol"] == (
        "afterimage-1; native size; n=10; repeats averaged; best-of-4 by predicted embedding"
    )
    text = protocol(size="425 px", n=3, repeats="single", selection="one sample", extra=["blend"])
    assert text == "afterimage-1; 425 px; n=3; repeats single; one sample; blend"


def test_blocks_bound_the_cost_and_keep_value_and_p(monkeypatch) -> None:
    truth, _, sets = study(40)
    counting_ssim = CountingPairs()
    whole = reconstruction_rows(truth, {}, [bare(sets[0])], subject="01", resampling=QUICK)
    monkeypatch.setattr(
        "afterimage.evaluation.measures.IMAGE_METRICS",
        {"ssim": (ssim, counting_ssim, 1.0)},
    )
    blocked = reconstruction_rows(truth, {}, [bare(sets[0])], subject="01", resampling=QUICK)
    assert counting_ssim.sizes == [8, 8, 8, 8, 8]
    a, b = pick(whole, "ridgeLowLevel", "ssim"), pick(blocked, "ridgeLowLevel", "ssim")
    assert a["value"] == b["value"]
    assert a["p"] == b["p"] == 1 / 200
    assert b["chance_low"] <= b["chance"] <= b["chance_high"] < b["value"]


class CountingPairs:
    """pairwise_ssim that remembers the sizes of the blocks it was asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, truth, recon):
        from afterimage.evaluation.images import pairwise_ssim

        self.sizes.append(len(truth))
        return pairwise_ssim(truth, recon)


def bare(one: ReconstructionSet) -> ReconstructionSet:
    return ReconstructionSet(one.label, one.decoder, one.method, one.role, one.images, {})


@pytest.mark.parametrize("n", [1, 2])
def test_few_images_give_nulls_not_nonsense(n) -> None:
    truth, embeddings, sets = study(n)
    scores = reconstruction_rows(truth, embeddings, sets, subject="01", resampling=QUICK)
    json.dumps(scores.rows, allow_nan=False)
    row = pick(scores, "ridgeLowLevel", "pixcorr")
    assert row["value"] is not None
    if n == 1:
        assert row["ci_low"] is row["chance"] is row["p"] is None
        assert pick(scores, "ridgeLowLevel", "twoway_clip")["value"] is None
    else:
        assert row["p"] > 0.3


def test_constant_reconstructions_are_counted() -> None:
    truth, embeddings, sets = study()
    sets[0].images[:3] = 0.5
    scores = reconstruction_rows(truth, embeddings, sets, subject="01", resampling=QUICK)
    assert scores.n_constant == {
        "ridgeLowLevel": 3,
        "shuffledBrainLowLevel": 0,
        "ceilingLowLevel": 0,
    }
    assert np.all(scores.per_image["ridgeLowLevel"]["pixcorr"][:3] == 0)


def test_within_cluster_rows_leave_out_lone_images() -> None:
    truth, embeddings, sets = study(10)
    clusters = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 2])
    scores = reconstruction_rows(
        truth, embeddings, sets, subject="01", clusters=clusters, resampling=QUICK
    )
    row = pick(scores, "ridgeLowLevel", "twoway_within_cluster_clip")
    assert row["n"] == 9
    assert "n=9" in row["protocol"]
    table = image_rows([f"s{i}" for i in range(10)], scores.per_image)
    assert table[9]["stimulus"] == "s9"
    assert table[9]["twoway_within_cluster_clip"] is None
    assert table[0]["pixcorr"] == scores.per_image["ridgeLowLevel"]["pixcorr"][0]
    assert len(table) == 30


def test_sets_must_match() -> None:
    truth, embeddings, sets = study(4)
    with pytest.raises(InputError, match="share a label"):
        reconstruction_rows(truth, embeddings, [sets[0], sets[0]], subject="01", resampling=QUICK)
    with pytest.raises(InputError, match="not embedded"):
        reconstruction_rows(truth, embeddings, [bare(sets[0])], subject="01", resampling=QUICK)


def test_prediction_rows() -> None:
    generator = np.random.default_rng(3)
    true = {"clip": generator.standard_normal((30, 3, 5)), "vae": generator.random((30, 8))}
    predicted = {k: v + 0.5 * generator.standard_normal(v.shape) for k, v in true.items()}
    means = {k: v.mean(axis=0) + 0.1 for k, v in true.items()}
    own = generator.random((30, 30)) + 2 * np.eye(30)
    scores = prediction_rows(
        predicted,
        true,
        subject="01",
        label="ridge",
        decoder="ridge",
        training_means=means,
        score_matrix=own,
        resampling=QUICK,
    )
    names = [row["metric"] for row in scores.rows]
    assert names[:6] == [
        *("twoway_clip", "rank_clip", "retrieval_top1_clip", "retrieval_top5_clip"),
        *("retrieval_top1_clip_image_to_brain", "retrieval_top5_clip_image_to_brain"),
    ]
    assert names[-4:] == [
        *("retrieval_top1", "retrieval_top5"),
        *("retrieval_top1_image_to_brain", "retrieval_top5_image_to_brain"),
    ]
    ceilings = {row["metric"].startswith("rank"): row["ceiling"] for row in scores.rows}
    assert ceilings == {False: 1.0, True: 0.0}
    assert {row["role"] for row in scores.rows} == {"prediction"}
    assert pick(scores, "ridge", "retrieval_top1")["value"] == 1.0
    centred = similarity(predicted["clip"], true["clip"], training_mean=means["clip"])
    back = pick(scores, "ridge", "retrieval_top1_clip_image_to_brain")
    assert back["value"] == retrieval(centred, 1, direction="image_to_brain").mean()
    assert "image_to_brain; gallery=30" in back["protocol"]
    assert back["protocol"].endswith("centred on training mean")
    assert back["chance"] == pytest.approx(1 / 30, abs=0.01)


def test_predictions_in_a_larger_gallery_with_repeats() -> None:
    generator = np.random.default_rng(4)
    gallery = generator.standard_normal((50, 8))
    index = np.array([3, 3, 7, 49])
    scores = prediction_rows(
        {"clip": gallery[index]},
        {"clip": gallery},
        subject="01",
        label="ridge",
        decoder="ridge",
        index=index,
        repeats="single",
        resampling=QUICK,
    )
    assert [row["value"] for row in scores.rows] == [1.0, 0.0, 1.0, 1.0]
    assert not any("image_to_brain" in row["metric"] for row in scores.rows)
    assert "gallery=50; repeats single" in scores.rows[0]["protocol"]


def test_every_metric_is_described() -> None:
    truth, embeddings, sets = study(8)
    scores = reconstruction_rows(
        truth, embeddings, sets, subject="01", clusters=[0] * 8, resampling=QUICK
    )
    for row in scores.rows:
        assert describe(row["metric"]) in METRICS.values()
    assert describe("twoway_within_cluster_clip") is METRICS["twoway_within_cluster"]
    assert describe("retrieval_top1_clip_image_to_brain") is METRICS["retrieval_top1"]
    assert not describe("mse").higher_is_better
    with pytest.raises(KeyError):
        describe("nonsense")
