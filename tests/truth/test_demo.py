"""The demo as a whole, on known truth: what was drawn is read back from the reconstructions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from afterimage.io.arrays import open_dataset, read_blocks
from afterimage.io.tables import read_tsv

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """Run the whole demo once, as the command does."""
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "afterimage", "demo", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def colour_histogram(images: np.ndarray) -> np.ndarray:
    """Share of pixels nearest to each of the named colours and backgrounds, (n, n_colours)."""
    from afterimage.simulate.stimuli import BACKGROUNDS, COLOURS

    palette = np.array([*COLOURS.values(), *BACKGROUNDS.values()], dtype=np.float32)
    pixels = images.reshape(len(images), -1, 1, 3).astype(np.float32)
    nearest = ((pixels - palette) ** 2).sum(axis=-1).argmin(axis=-1)
    return np.stack([(nearest == index).mean(axis=1) for index in range(len(palette))], axis=1)


@pytest.fixture(scope="module")
def readers():
    """Classifiers of category and colour, trained on fresh pictures the study never saw."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from afterimage.features.gabor import GaborEncoder, GaborSettings
    from afterimage.simulate.stimuli import draw_stimuli

    encoder = GaborEncoder(GaborSettings())

    def shape_features(images: np.ndarray) -> np.ndarray:
        return encoder.encode(list(images)).reshape(len(images), -1)

    images, attributes, _ = draw_stimuli(3000, random_state=987_654)
    category = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    category.fit(shape_features(images), attributes["category"])
    colour = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    colour.fit(colour_histogram(images), attributes["colour"])

    fresh, truth, _ = draw_stimuli(300, random_state=123_456)
    assert (category.predict(shape_features(fresh)) == truth["category"]).mean() > 0.95
    assert (colour.predict(colour_histogram(fresh)) == truth["colour"]).mean() > 0.95
    return {
        "category": lambda pictures: category.predict(shape_features(pictures)),
        "colour": lambda pictures: colour.predict(colour_histogram(pictures)),
    }


def reconstructions(
    demo: Path, subject: str, source: str = "brain"
) -> tuple[list[str], np.ndarray]:
    path = demo / "results" / subject / "recon" / f"{subject}_desc-bayesian_recon.nc"
    ids, _ = read_blocks(path, source, names=[])
    with open_dataset(path, source) as dataset:
        values = dataset["latent_diffusion"]
        return list(ids), values.values.reshape(-1, *values.attrs["shape"])


@pytest.mark.parametrize("subject", ["sub-01", "sub-02"])
def test_category_and_colour_are_read_back(demo, readers, subject):
    rows = {
        row["stimulus_id"]: row for row in read_tsv(demo / "dataset" / "stimuli" / "stimuli.tsv")
    }
    ids, pictures = reconstructions(demo, subject)
    shares = {
        name: np.mean(
            [rows[i][name] == value for i, value in zip(ids, read(pictures), strict=True)]
        )
        for name, read in readers.items()
    }
    print(subject, shares)
    assert shares["category"] >= 0.80  # chance 1/8
    assert shares["colour"] >= 0.70
    ids, shuffled = reconstructions(demo, subject, "shuffled")
    read = readers["category"](shuffled)
    assert (
        np.mean([rows[i]["category"] == value for i, value in zip(ids, read, strict=True)]) < 0.4
    )


@pytest.mark.parametrize("subject", ["sub-03", "sub-04"])
def test_category_is_read_back_from_eeg_and_meg(demo, readers, subject):
    rows = {
        row["stimulus_id"]: row for row in read_tsv(demo / "dataset" / "stimuli" / "stimuli.tsv")
    }
    for source, low, high in (("brain", 0.60, 1.0), ("shuffled", 0.0, 0.4)):  # chance 1/8
        ids, pictures = reconstructions(demo, subject, source)
        read = readers["category"](pictures)
        share = np.mean([rows[i]["category"] == value for i, value in zip(ids, read, strict=True)])
        print(subject, source, share)
        assert low <= share <= high


def test_all_modalities_stand_in_one_table_on_the_same_pictures(demo):
    rows = read_tsv(demo / "results" / "group" / "metrics.tsv")
    assert {row["subject"] for row in rows} == {"01", "02", "03", "04"}
    tests = [
        {
            row["stimulus_id"]
            for row in read_tsv(demo / "results" / f"sub-{n:02d}" / f"sub-{n:02d}_split.tsv")
            if row["split"] == "test"
        }
        for n in range(1, 5)
    ]
    assert tests[0] == tests[1] == tests[2] == tests[3]


def test_identification_is_high_and_shuffled_brains_are_at_chance(demo):
    rows = read_tsv(demo / "results" / "group" / "metrics.tsv")
    for row in rows:
        if row["label"] == "bayesianLatentDiffusion" and row["metric"] == "twoway_clip":
            assert float(row["value"]) >= (0.95 if row["subject"] in ("01", "02") else 0.80)
    shuffled = [row for row in rows if "ShuffledBrain" in row["label"] and row["p"] != "n/a"]
    assert len(shuffled) > 100
    outside = [
        row
        for row in shuffled
        if not float(row["chance_low"]) <= float(row["value"]) <= float(row["chance_high"])
    ]
    # 95 % intervals: 5 % may lie outside by chance; rows of one subject are far from independent.
    assert len(outside) < 0.15 * len(shuffled), [(r["label"], r["metric"]) for r in outside]


def test_a_second_run_does_nothing(demo):
    command = [sys.executable, "-m", "afterimage", "demo", str(demo)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing to be done" in done.stdout


@pytest.mark.parametrize("subject", ["sub-01", "sub-02"])
def test_captions_name_category_and_colour(demo, subject):
    rows = read_tsv(demo / "results" / subject / "evaluation" / f"{subject}_metrics.tsv")
    named = {
        (row["role"], row["metric"]): float(row["value"])
        for row in rows
        if row["decoder"] == "ridge" and row["metric"].startswith("named_")
    }
    print(subject, named)
    assert named["caption", "named_category"] >= 0.80  # chance 1/8
    assert named["caption", "named_colour"] >= 0.80
    assert named["caption_audit", "named_category"] < 0.4


def test_more_data_tell_more_and_the_curve_is_drawn(demo):
    for subject in ("sub-01", "sub-03", "sub-04"):
        folder = demo / "results" / subject
        rows = read_tsv(folder / "evaluation" / f"{subject}_learning.tsv")
        values = [float(row["value"]) for row in rows if row["metric"] == "twoway_clip"]
        assert values[0] < values[-1]
        page = (demo / "results" / f"{subject}.html").read_text(encoding="utf-8")
        assert "over the amount of training data" in page
