"""The section on tokenizers: what it says of good and of bad ones, and its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afterimage.reports.assemble import assemble_group
from afterimage.reports.figures.style import DARK, LIGHT
from afterimage.reports.figures.tokenizers import meaning_panels, return_panels
from afterimage.reports.model import GroupReport, GroupSubject
from afterimage.reports.tokenizer_words import meaning_finding, return_finding, use_finding
from afterimage.reports.tokenizers import TokenizerCard


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
