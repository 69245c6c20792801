"""The section on tokenizers: what it says of good and of bad ones, and its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afterimage.reports.assemble import assemble_group
from afterimage.reports.figures.style import DARK, LIGHT
from afterimage.reports.figures.token_probes import guess_panels, told_panels
from afterimage.reports.figures.tokenizers import meaning_panels, return_panels
from afterimage.reports.model import GroupReport, GroupSubject
from afterimage.reports.token_probe_words import model_finding, probe_findings
from afterimage.reports.tokenizer_words import meaning_finding, return_finding, use_finding
from afterimage.reports.tokenizers import TokenizerCard, TokenModel


def row(measure: str, part: str, value: float, stage: str = "n/a", **more: Any) -> dict[str, Any]:
    bounds = {"ci_low": value - 0.02, "ci_high": value + 0.02, "n": 9}
    return {"measure": measure, "part": part, "stage": stage, "value": value, **bounds, **more}


def card(
    r: float = 0.8, rival: float = 0.7, perplexity: float = 300.0, told: float = 0.3,
    p: float = 0.01, used: float = 0.95, **more: Any,
) -> TokenizerCard:  # fmt: skip
    rows = [
        row("correlation", "unseen", r), row("correlation", "seen", r + 0.02),
        row("correlation", "layout unseen", r - 0.01),
        row("correlation", "chance (tokens moved)", 0.01),
        row("correlation", "k-means of patches", rival),
        row("correlation by stages", "unseen", r - 0.1, "1"),
        row("correlation by stages", "unseen", r, "2"),
        row("perplexity", "unseen", perplexity, "1"),
        row("codes used", "unseen", used, "1"),
        row("perplexity", "unseen", 200.0, "2"),
        row("codes used", "unseen", 0.7, "2"),
        row("bits per second", "as used", 1000.0), row("bits per second", "16-bit samples", 2e5),
        row("band power told", "unseen", told),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    codes = [{"code": code, "share": 0.1, "band": "alpha", "peak_hz": 10.0} for code in range(10)]
    details = {
        "codebook_size": 512, "step_s": 0.1, "sfreq_hz": 200.0, "decodes": "signal", "codes": codes,
        "events": {
            "kinds": ["left", "right"], "information_bits": 0.02, "chance_bits": 0.001, "p": p,
            "rates": {str(code): [1.5, None if code == 3 else 0.6] for code in range(10)},
        },
    }  # fmt: skip
    target = rng.standard_normal((6, 800)).cumsum(1).astype(np.float32)
    arrays = {
        "losses": np.linspace(2, 1, 300), "target": target, "decoded": target * 0.9,
        "codes": np.arange(10), "shares": np.full(10, 0.1),
        "frequency_hz": np.fft.rfftfreq(200, 1 / 200), "spectra": rng.standard_normal((10, 101)),
        "motifs": rng.standard_normal((10, 200)), "examples": rng.standard_normal((10, 8, 200)),
    }  # fmt: skip
    exposure = [
        {"recording": f"sub-{n}", "subject": str(n), "part": part, "seconds": "1800"}
        for n, part in enumerate(["train"] * 4 + ["test"] * 2)
    ]
    return TokenizerCard("patches", rows, details | more, exposure, arrays)


def report(*cards: TokenizerCard) -> GroupReport:
    return GroupReport([GroupSubject("00")], tokenizers=cards)


@pytest.mark.parametrize(
    ("values", "state"),
    [({"r": 0.8, "rival": 0.7}, "yes"), ({"r": 0.6, "rival": 0.7}, "partly"),
     ({"r": 0.02, "rival": 0.7}, "no")],
)  # fmt: skip
def test_what_comes_back_in_words(values: dict[str, float], state: str) -> None:
    found = return_finding(card(**values))
    assert found.state == state
    assert f"r = {values['r']:.3f}" in found.detail
    assert "200 times fewer than samples" in found.detail


@pytest.mark.parametrize(
    ("perplexity", "used", "state"), [(300, 0.95, "yes"), (100, 0.95, "partly"), (3, 0.1, "no")]
)
def test_use_of_codes_in_words(perplexity: float, used: float, state: str) -> None:
    found = use_finding(card(perplexity=perplexity, used=used))
    assert found.state == state
    assert f"perplexity {perplexity:.1f} of 512" in found.detail


@pytest.mark.parametrize(
    ("told", "p", "state"),
    [(0.3, 0.01, "yes"), (0.3, 0.5, "partly"), (0.0, 0.01, "partly"), (-0.1, 0.5, "no")],
)
def test_meaning_of_codes_in_words(told: float, p: float, state: str) -> None:
    assert meaning_finding(card(told=told, p=p)).state == state
    without = meaning_finding(card(told=told, events=None))
    assert without.state == ("yes" if told > 0.02 else "no")
    assert "event" not in without.detail


def test_the_section_has_findings_pictures_table_and_what_was_seen() -> None:
    html = assemble_group(report(card()))
    for words in (
        "Tokenizers", "how much of the signal comes back", "More than from as many plain patches.",
        "patches: motifs", "patches: frequencies", "patches: events", "patches: an example",
        "has seen 4 recordings of 4 people (2.00 hours)", "2 recordings of others were kept",
    ):  # fmt: skip
        assert words in html, words
    assert html == assemble_group(report(card()))
    alone = assemble_group(report(card(held_out="runs")))
    assert "nothing is known of other people" in alone
    assert "comes back in runs never seen?" in alone
    assert "comes back" not in assemble_group(report())


def test_pictures_are_drawn_for_both_themes_and_for_spectra() -> None:
    panels = [*return_panels(report(card())), *meaning_panels(report(card()))]
    assert len(panels) == 7
    for panel in panels:
        for theme in (LIGHT, DARK):
            assert panel.draw(theme).startswith(b"<svg") or b"<svg" in panel.draw(theme)[:500]
    spectra = card(decodes="spectrum")
    arrays = dict(spectra.arrays) | {
        "target": np.ones((2, 40, 30)),
        "decoded": np.ones((2, 40, 30)),
    }
    drawn = TokenizerCard("s", spectra.rows, spectra.details, (), arrays)
    assert b"<svg" in return_panels(report(drawn))[2].draw(LIGHT)[:500]


def model(*values: float) -> TokenModel:
    """Return a model with the cross-entropy of two stages, beside the same guesses."""
    guesses = {"chance": 4.85, "unigram": 4.2, "bigram": 3.9, "copy neighbour": 3.5}
    rows = [
        {"stage": stage, "predictor": name, "value": value, "ci_low": value - 0.1,
         "ci_high": value + 0.1, "n": 4}
        for stage, own in enumerate(values, start=1)
        for name, value in {"masked model": own, **guesses}.items()
    ]  # fmt: skip
    exposure = [
        {"subject": str(n), "part": "test" if n > 3 else "train", "n_tokens": "100"}
        for n in range(6)
    ]
    return TokenModel("omni", "patches", rows, exposure, {"losses": [4.8, 3.4], "n_weights": 5e5})


@pytest.mark.parametrize(
    ("values", "state"), [((3.0, 3.2), "yes"), ((3.0, 3.7), "partly"), ((4.3, 3.0), "no")]
)
def test_hidden_tokens_guessed_in_words(values: tuple[float, float], state: str) -> None:
    found = model_finding(model(*values))
    assert found.state == state
    assert f"stage 1: {values[0]:.3f} nats, copy neighbour 3.500" in found.detail


def probed(own: float, linear: float, low: float | None, high: float | None) -> TokenizerCard:
    def told(features: str, role: str, value: float, seen: str) -> dict[str, Any]:
        bounds = {"ci_low": value - 0.05, "ci_high": value + 0.05, "chance": 0.5,
                  "chance_low": 0.4, "chance_high": 0.6, "p": 0.01}  # fmt: skip
        return {
            "contrast": "side", "features": features, "role": role, "seen": seen, "metric": "auc",
            "value": value, "n": 60, "n_groups": 4, "protocol": "ridge; people left out", **bounds,
        }  # fmt: skip

    rows = [
        told(features, role, value, seen)
        for seen in ("no", "yes")
        for features, role, value in (
            ("windowLDA", "linear baseline", linear), ("omni: frozen", "model", own)
        )
    ]  # fmt: skip
    verdict = {"linear": "windowLDA", "linear_auc": linear, "tokens": "omni: frozen",
               "tokens_auc": own, "difference": [own - linear, low, high]}  # fmt: skip
    whole = card()
    return TokenizerCard(
        whole.name, whole.rows, whole.details, whole.exposure, whole.arrays, rows,
        {"contrasts": {"side": {"verdicts": {"no": verdict}}, "few": {"notes": ["too few"]}}},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("own", "linear", "low", "high", "state", "words"),
    [
        (0.9, 0.7, 0.1, 0.3, "yes", "Yes: omni: frozen."),
        (0.75, 0.7, -0.1, 0.2, "partly", "No more than by luck"),
        (0.65, 0.7, -0.2, 0.1, "no", "is as good or better"),
        (0.6, 0.85, -0.4, -0.1, "no", "A linear model of the signal wins: windowLDA."),
        (0.6, 0.85, None, None, "no", "A linear model of the signal wins"),
    ],
)
def test_who_wins_is_said_plainly(
    own: float, linear: float, low: float | None, high: float | None, state: str, words: str
) -> None:
    (found,) = probe_findings(probed(own, linear, low, high))
    assert found.state == state
    assert words in found.answer
    assert f"AUC {own:.3f} omni: frozen, {linear:.3f} windowLDA" in found.detail
    assert "in people never seen?" in found.question


def test_the_section_shows_models_and_probes() -> None:
    made = GroupReport(
        [GroupSubject("00")], tokenizers=[probed(0.6, 0.85, -0.4, -0.1)],
        token_models=[model(3.0, 3.2)],
    )  # fmt: skip
    html = assemble_group(made)
    for words in (
        "Hidden tokens guessed", "What tokens tell", "seen in training", "people never seen",
        "0.50 million weights", "4 recordings of 4 people", "A linear model of the signal wins",
        "omni: hidden tokens", "patches: side, people never seen",
    ):  # fmt: skip
        assert words in html, words
    panels = [*guess_panels(made), *told_panels(made)]
    assert len(panels) == 4
    for panel in panels:
        assert b"<svg" in panel.draw(LIGHT)[:500]
