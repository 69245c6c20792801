"""Published protocols on fixed arrays: against their own recipes, written with other libraries."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import correlation
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from afterimage.errors import InputError
from afterimage.evaluation.identification import similarity, two_way
from afterimage.evaluation.metrics import (
    check_one_protocol,
    comparison_key,
    family_of,
    protocol,
)
from afterimage.evaluation.protocol_scores import ProtocolJudge, retrieval_rows
from afterimage.evaluation.protocols import (
    PROTOCOLS,
    drawn_galleries,
    drawn_retrieval,
    first_step,
    network_features,
    resize_square,
)
from afterimage.evaluation.scores import ReconstructionSet, Resampling

QUICK = Resampling(n_bootstraps=100, n_permutations=199)
A, B = PROTOCOLS["mindeye2"], PROTOCOLS["brain_diffuser"]


class Pooled:
    """A network whose features can be worked out: means of quarters of the picture, by colour."""

    def encode(self, images, layers):
        self.sizes = {images.shape[-1]}
        values = torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
        return {layer: values**2 if layer.endswith("11") else values for layer in layers}


def pictures(n: int = 4, size: int = 40, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 5, 5, 3), dtype=np.uint8)
    return [
        np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC))
        for one in coarse
    ]


def recon_of(truth: list[np.ndarray], size: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    return [
        np.asarray(
            Image.fromarray(
                (0.6 * one + 0.4 * rng.integers(0, 256, one.shape)).astype(np.uint8)
            ).resize((size, size))
        )
        for one in truth
    ]


def judged(which, networks, truth, recon):
    judge = ProtocolJudge(
        which, truth, networks,
        lambda images: {"gabor": np.stack(images).reshape(len(images), -1).astype(float)},
        QUICK, "01",
    )  # fmt: skip
    for label, role, made in (
        ("ridgeLow", "reconstruction", recon),
        ("ceilingLow", "ceiling", truth),
    ):
        judge.add(
            ReconstructionSet(
                label=label, decoder="ridge", method="low", role=role,
                images=np.stack(truth), embeddings={}, ceiling="ceilingLow", originals=made,
                how=("no blend", "seed 0", "not transductive"),
            )
        )  # fmt: skip
    return {(row["label"], row["metric"]): row for row in judge.rows()}


def two_way_published(real: np.ndarray, pred: np.ndarray) -> float:
    """Score as the lines of the notebook do."""
    n = len(real)
    r = np.corrcoef(real.reshape(n, -1), pred.reshape(n, -1))[:n, n:]
    success = r < np.diag(r)
    return float(np.mean(np.sum(success, 0)) / (n - 1))


def tensor_resize(image: np.ndarray, size: int) -> np.ndarray:
    """Torchvision 0.16's Resize of a tensor: bilinear, half-pixel centres, no antialias."""
    x = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    x = torch.nn.functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return x[0].permute(1, 2, 0).numpy()


def floats_to(image: np.ndarray, size: int) -> np.ndarray:
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    x = torch.nn.functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return x[0].permute(1, 2, 0).numpy()


def test_a_is_the_recipe_of_mindeye2() -> None:
    truth = pictures()
    recon = recon_of(truth)
    networks = {use.network: Pooled() for use in A.uses}
    rows = judged(A, networks, truth, recon)
    first = [tensor_resize(one, 256) for one in truth], [tensor_resize(one, 256) for one in recon]
    large = [[floats_to(one, 425) for one in side] for side in first]
    pixcorr = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*large, strict=True)]
    ssim = [
        structural_similarity(
            rgb2gray(b), rgb2gray(a), gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=1.0,
        )
        for a, b in zip(*large, strict=True)
    ]  # fmt: skip
    assert rows["ridgeLow", "pixcorr"]["value"] == pytest.approx(np.mean(pixcorr), abs=1e-6)
    assert rows["ridgeLow", "ssim"]["value"] == pytest.approx(np.mean(ssim), abs=1e-6)
    for name, size, layer in (
        ("alexnet2", 256, "features.4"), ("alexnet5", 256, "features.11"),
        ("inception", 342, "avgpool"), ("cliplarge", 224, "final"), ("efficientnet", 255, "avgpool"),
        ("swav", 224, "avgpool"),
    ):  # fmt: skip
        real, pred = (
            Pooled().encode(
                torch.from_numpy(np.stack([floats_to(one, size) for one in side])).permute(0, 3, 1, 2),
                [layer],
            )[layer].numpy()
            for side in first
        )  # fmt: skip
        if name in ("efficientnet", "swav"):
            expected = np.mean([correlation(a, b) for a, b in zip(real, pred, strict=True)])
            assert rows["ridgeLow", f"distance_{name}"]["value"] == pytest.approx(
                expected, abs=1e-6
            )
        else:
            expected = two_way_published(real, pred)
            assert rows["ridgeLow", f"twoway_{name}"]["value"] == pytest.approx(
                expected, abs=1e-12
            )
    row = rows["ridgeLow", "twoway_inception"]
    assert row["protocol"] == (
        "mindeye2; resized to 256, then 425 px; n=4; brain_to_image; gallery=4; repeats averaged; "
        "one sample; no blend; seed 0; not transductive"
    )
    assert row["ceiling"] == rows["ceilingLow", "twoway_inception"]["value"] == 1.0


def test_b_is_the_recipe_of_brain_diffuser() -> None:
    truth = pictures(size=425)
    recon = recon_of(truth, size=512)
    networks = {use.network: Pooled() for use in B.uses}
    rows = judged(B, networks, truth, recon)
    large = [np.asarray(Image.fromarray(one).resize((425, 425))) / 255.0 for one in recon]
    pixcorr, ssim = [], []
    for a, b in zip(truth, large, strict=True):
        pixcorr.append(np.corrcoef((a / 255.0).reshape(1, -1), b.reshape(1, -1))[0, 1])
        ssim.append(
            structural_similarity(
                rgb2gray(b), rgb2gray(a / 255.0), gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False, data_range=1.0,
            )
        )  # fmt: skip
    assert rows["ridgeLow", "pixcorr"]["value"] == pytest.approx(np.mean(pixcorr), abs=1e-6)
    assert rows["ridgeLow", "ssim"]["value"] == pytest.approx(np.mean(ssim), abs=1e-5)
    real, pred = (
        torch.stack(
            [
                torch.from_numpy(
                    np.asarray(Image.fromarray(one).resize((224, 224), Image.Resampling.BILINEAR))
                    / np.float32(255)
                ).permute(2, 0, 1)
                for one in side
            ]
        )
        for side in (truth, recon)
    )
    a, b = (Pooled().encode(side, ["avgpool"])["avgpool"].numpy() for side in (real, pred))
    assert rows["ridgeLow", "twoway_alexnet2"]["value"] == pytest.approx(two_way_published(a, b))
    expected = np.mean([correlation(u, v) for u, v in zip(a, b, strict=True)])
    assert rows["ridgeLow", "distance_efficientnet"]["value"] == pytest.approx(expected, abs=1e-6)
    # The two lines use two weights of EfficientNet-B1.
    assert {use.network for use in A.uses} - {use.network for use in B.uses} == {"efficientnet_b1"}


def test_an_absent_network_never_lends_its_name() -> None:
    truth = pictures()
    rows = judged(A, {}, truth, recon_of(truth))
    names = {metric for label, metric in rows if label == "ridgeLow"}
    assert names == {"pixcorr", "ssim", "twoway_standin_gabor"}


def test_the_resize_of_tensors_is_not_that_of_pillow() -> None:
    checker = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    image = np.repeat(checker[:, :, None], 3, axis=2)
    tensor = resize_square([image], 7, tensors=True)
    pillow = resize_square([image], 7, tensors=False)
    assert np.ptp(tensor) > 0.5 > 0.1 > np.ptp(pillow)  # aliased, and averaged to grey


def test_retrieval_draws_galleries_and_names_its_direction() -> None:
    # 4 queries: the first finds its own, the second ties, the third and fourth find each other.
    matrix = np.array(
        [[0.9, 0.1, 0.2, 0.3], [0.5, 0.5, 0.1, 0.1], [0.1, 0.2, 0.3, 0.8], [0.0, 0.1, 0.7, 0.2]]
    )
    np.testing.assert_array_equal(drawn_retrieval(matrix, [np.arange(4)]), [1, 0, 0, 0])
    without_third = drawn_retrieval(matrix, [np.array([0, 1, 3])])
    np.testing.assert_array_equal(without_third, [1, 0, np.nan, 1])
    galleries = drawn_galleries(1000, 300, 30, 0)
    assert len(galleries) == 30 and {len(set(one)) for one in galleries} == {300}
    rng = np.random.default_rng(0)
    true = rng.standard_normal((400, 8))
    predicted = true + 1.0 * rng.standard_normal(true.shape)
    rows = retrieval_rows(
        A,
        {"clip": predicted},
        {"clip": true},
        subject="01",
        decoder="ridge",
        kinds={},
        drawing=QUICK,
    )
    forward, backward = rows
    assert "brain_to_image; gallery=300" in forward["protocol"]
    assert "30 draws, seed 0" in forward["protocol"] and "cosine" in forward["protocol"]
    assert "image_to_brain" in backward["protocol"] and backward["metric"].endswith(
        "image_to_brain"
    )
    cosine = torch.nn.functional.cosine_similarity(
        torch.from_numpy(predicted)[:, None], torch.from_numpy(true)[None], dim=2
    ).numpy()
    hits = [
        np.mean(cosine[np.ix_(rows_, rows_)].argmax(1) == np.arange(300))
        for rows_ in drawn_galleries(400, 300, 30, 0)
    ]
    assert forward["value"] == pytest.approx(np.mean(hits), abs=0.02)
    assert forward["chance"] == 1 / 300
    assert not retrieval_rows(
        B, {"clip": predicted}, {"clip": true}, subject="01", decoder="r", kinds={}
    )


def test_permuted_brains_score_half() -> None:
    truth = pictures(n=60, seed=3)
    rng = np.random.default_rng(0)
    for which in (A, B):
        real, pred = (
            network_features(which, first_step(which, side), {"alexnet": Pooled()})["alexnet2"]
            for side in (truth, recon_of(truth))
        )
        matrix = similarity(pred, real)
        assert two_way(matrix).mean() > 0.9
        values = [two_way(matrix[rng.permutation(60)]).mean() for _ in range(200)]
        assert np.mean(values) == pytest.approx(0.5, abs=0.01)


def test_keys_say_what_may_be_averaged() -> None:
    def row(metric="twoway_clip", family="afterimage-1", n=50, gallery=50, size="native size"):
        text = protocol(
            size=size, n=n, repeats="averaged", selection="one sample", family=family,
            direction="brain_to_image", gallery=gallery,
        )  # fmt: skip
        return {"metric": metric, "protocol": text}

    assert family_of(row(family="mindeye2")) == "mindeye2"
    told = row()["protocol"]
    more, fewer = (
        {"metric": "twoway_clip", "protocol": f"{told}; {n} training trials"} for n in (90, 80)
    )
    check_one_protocol([row(), row(), more, fewer], "averaged")  # how much data is a person's own
    # how many pictures people were tested on changes what is expected of retrieval alone
    check_one_protocol([row(), row(n=40, gallery=40)], "averaged")
    assert comparison_key(row("retrieval_top1")) != comparison_key(
        row("retrieval_top1", gallery=40)
    )
    silent = [{"metric": "retrieval_top1", "protocol": "as told", "n": n} for n in ("50", 50.0)]
    check_one_protocol(silent, "averaged")
    assert comparison_key(silent[0]) != comparison_key({**silent[0], "n": "40"})
    for other in (
        row("retrieval_top1"), row(family="mindeye2"),
        row(size="resized to 425 x 425"), row("pixcorr"),
        {"metric": "twoway_clip", "protocol": told.replace("averaged", "scored one by one")},
        {"metric": "twoway_clip", "protocol": told.replace("one sample", "best-of-4")},
    ):  # fmt: skip
        with pytest.raises(InputError, match="would be averaged"):
            check_one_protocol([row(), other], "averaged")


def test_the_numbers_of_both_lines_are_those_of_their_papers() -> None:
    assert (A.first_px, A.low_level_px, A.gallery, A.n_draws) == (256, 425, 300, 30)
    assert (B.first_px, B.low_level_px, B.gallery, B.published_n) == (None, 425, None, (982,))
    assert SimpleNamespace(**{u.name: u.size_px for u in A.uses}) == SimpleNamespace(
        alexnet2=256, alexnet5=256, inception=342, cliplarge=224, efficientnet=255, swav=224
    )
    assert {u.size_px for u in B.uses} == {224}
