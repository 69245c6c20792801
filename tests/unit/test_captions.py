"""Caption metrics against values worked by hand, and their rows in the table of scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from afterimage.evaluation.caption_scores import CaptionSet, Judge, References, caption_rows
from afterimage.evaluation.captions import (
    Cider,
    bleu1,
    bleu4,
    first_named,
    meteor,
    rouge1,
    rouge_l,
)


def test_meteor_of_equal_words_and_stems() -> None:
    # P = 1, R = 2/3, one chunk of two matches
    harmonic = (2 / 3) / (0.9 + 0.1 * 2 / 3)
    expected = harmonic * (1 - 0.5 * (1 / 2) ** 3)
    assert meteor("red face", ("a red face",)) == pytest.approx(expected)
    # all four words, in three chunks: a b | d | c
    assert meteor("a b d c", ("a b c d",)) == pytest.approx(1 - 0.5 * (3 / 4) ** 3)
    assert meteor("red faces", ("red face",)) == meteor("red face", ("red face",))  # a stem
    assert meteor("crimson", ("red",)) == 0  # synonyms are not known
    assert meteor("", ("red",)) == 0
    best = meteor("red face", ("blue car", "a red face"))
    assert best == meteor("red face", ("a red face",))


def test_rouge_and_bleu() -> None:
    assert rouge1("red face", ("a red face",)) == pytest.approx(0.8)  # P 1, R 2/3
    assert rouge1("face red", ("red face",)) == 1
    assert rouge_l("face red", ("red face",)) == pytest.approx(0.5)
    assert rouge1("faces", ("face",)) == 0  # no stemming
    assert bleu1("red face", ("a red face",)) == pytest.approx(math.exp(1 - 3 / 2))
    expected = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu4("a b c d e", ("a b c d f",)) == pytest.approx(expected)
    assert bleu4("", ("red",)) == 0


def test_cider_weighs_words_by_rarity() -> None:
    # Two pictures: "a" is in both (weight 0), "b", "c" and the pairs in one (weight log 2).
    cider = Cider([("a b",), ("a c",)])
    assert cider("a b", ("a b",)) == pytest.approx(10 * 2 / 4)  # words and pairs agree, no triples
    assert cider("a c", ("a b",)) == 0
    assert cider("b a", ("a b",)) == pytest.approx(10 / 4)  # the word, not the pair
    assert cider("b", ("a b",)) == pytest.approx(10 / 4 * math.exp(-1 / 72))  # no pair against one
    assert cider("a b", ("a b", "a c")) == pytest.approx(10 * 2 / 4 / 2)  # mean over references


def test_the_value_named_first_counts() -> None:
    colours = ("red", "blue", "light green")
    assert first_named("a red face on a light blue background", colours) == "red"
    assert first_named("A light green face, not red.", colours) == "light green"
    assert first_named("a face", colours) == ""


def planted(n: int = 24) -> tuple[list[str], list[str], list[str]]:
    colours = [("red", "blue", "green")[i % 3] for i in range(n)]
    things = [("face", "car", "tree", "dog")[i // 6] for i in range(n)]
    words = [f"a {c} {t} number {i}" for i, (c, t) in enumerate(zip(colours, things, strict=True))]
    return words, colours, things


def one_hot(texts: object) -> np.ndarray:
    vocabulary = sorted({word for text in planted()[0] for word in text.split()})
    counts = np.array([[w in text.split() for w in vocabulary] for text in texts], float)  # type: ignore[attr-defined]
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_rows_carry_chance_ceiling_and_the_references_they_are_from() -> None:
    truth, colours, things = planted()
    git = [text.replace("number", "no") for text in truth]
    wrong = truth[1:] + truth[:1]
    sets = [
        CaptionSet(
            "ridgeGitCaption", "ridge", "git_caption", "caption", truth, "ceilingGitCaption"
        ),
        CaptionSet(
            "shuffled", "ridge", "git_caption", "caption_audit", wrong, "ceilingGitCaption"
        ),
        CaptionSet("ceilingGitCaption", "", "git_caption", "caption_ceiling", git),
    ]
    references = [
        References("dataset", [(text, text + " there") for text in truth]),
        References("git", [(text,) for text in git]),
    ]
    judge = Judge(
        embed={"sentence": one_hot, "cliptext": one_hot}, images=one_hot(truth),
        attributes={"colour": colours, "thing": things},
        values={"colour": sorted(set(colours)), "thing": sorted(set(things))},
    )  # fmt: skip
    rows, per_caption = caption_rows(sets, references, judge, subject="01", n_permutations=200)
    found = {(row["label"], row["metric"]): row for row in rows}
    exact = found["ridgeGitCaption", "named_colour"]
    assert exact["value"] == exact["ceiling"] == 1
    assert abs(exact["chance"] - 1 / 3) < 0.1
    assert exact["p"] == pytest.approx(1 / 201)
    assert found["shuffled", "named_colour"]["value"] == 0
    assert found["ridgeGitCaption", "sentence_dataset"]["value"] == pytest.approx(1)
    assert found["ridgeGitCaption", "clipimage"]["value"] == pytest.approx(1)
    assert found["ridgeGitCaption", "rouge1_dataset"]["value"] == 1
    assert found["ridgeGitCaption", "rouge1_git"]["value"] == pytest.approx(0.8)
    assert found["ceilingGitCaption", "rouge1_git"]["value"] == 1
    assert found["ceilingGitCaption", "rouge1_dataset"]["ceiling"] is None
    for row in rows:
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        if row["metric"].endswith("_git"):
            assert "GIT of the true picture, 1 a picture" in row["protocol"]
        elif row["metric"].endswith("_dataset"):
            assert "captions of the dataset, 2 to 2 a picture" in row["protocol"]
    assert set(per_caption["shuffled"]) == {row["metric"] for row in rows}


def test_without_references_or_encoders_the_rest_is_scored() -> None:
    truth, colours, _ = planted()
    sets = [CaptionSet("ridge", "ridge", "git_caption", "caption", truth)]
    judge = Judge(attributes={"colour": colours}, values={"colour": sorted(set(colours))})
    rows, _ = caption_rows(sets, [], judge, subject="01", n_permutations=100)
    assert [row["metric"] for row in rows] == ["named_colour"]
    assert rows[0]["ceiling"] is None
