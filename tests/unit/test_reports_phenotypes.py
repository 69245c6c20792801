"""The report's words on phenotypes and generated connectivity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tests.report_example import make_group

from afterimage.reports import generated, phenotypes
from afterimage.reports.assemble import assemble_group
from afterimage.reports.figures.phenotypes import generated_panels, phenotype_panels
from afterimage.reports.figures.style import LIGHT


def row(features: str, value: float, p: float, **more: Any) -> dict[str, Any]:
    values = {
        "target": "iq", "seg": "A", "features": features, "role": "features", "metric": "r",
        "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "chance": -0.05,
        "chance_low": -0.3, "chance_high": 0.25, "p": p, "p_holm": p, "ci_all_low": value - 0.46,
        "ci_all_high": value + 0.4, "n": 49,
        "protocol": "ridge", "note": "n/a",
    }  # fmt: skip
    return {name: str(cell) for name, cell in {**values, **more}.items()}


NULL = [
    row("motion", 0.02, 0.4, role="rival", p_holm="n/a"),
    row("correlation", 0.11, 0.1),
    row("tangent", -0.2, 0.8),
]


def test_a_null_is_called_a_null() -> None:
    view = phenotypes.group_view(NULL)
    assert view is not None
    (sentence,) = view["sentences"]
    assert sentence.startswith("No feature predicts iq better than chance; the highest is Pearson")
    assert "correlation 0.110, 95 % interval 0.010 to 0.210, chance −0.050, 49 rows" in sentence
    assert "Motion alone reaches 0.020." in sentence
    assert len(view["table"].rows) == 3
    assert view["table"].notes == ("Motion alone, Pearson correlation, Tangent space (iq): ridge",)
    lucky = [*NULL[:2], row("graph_modules", 0.4, 0.007, p_holm=0.056)]
    view = phenotypes.group_view(lucky)
    assert view is not None
    assert "highest is Graph: modules" in view["sentences"][0]
    assert "Alone its p would be 0.007; corrected for the 2 sets" in view["sentences"][0]
    said = (
        "it is 0.056, and the 95 % interval for all tries is −0.060 to 0.800, which holds chance."
    )
    assert said in view["sentences"][0]
    close = phenotypes.group_view([row("graph_modules", 0.4, 0.007, p_holm=0.049)])
    assert close is not None  # one-sided it is below 0.05; the interval is two-sided
    assert close["sentences"][0].startswith("No feature predicts iq")
    assert phenotypes.group_view([]) is None


def test_a_rival_that_is_as_good_is_said() -> None:
    rows = [row("correlation", 0.6, 0.001), row("phenotypes", 0.55, 0.001, role="rival")]
    bad = {"target": "age", "note": "a phenotype has one value only", "value": "n/a"}
    view = phenotypes.group_view([*rows, bad])
    assert view is not None
    (sentence,) = view["sentences"]
    assert sentence.startswith("iq is predicted better than chance by Pearson correlation")
    assert "Phenotypes alone reaches 0.550, which the interval of the highest does not" in sentence
    assert view["notes"] == ["age: a phenotype has one value only."]


CHECKS = [
    {"check": "mean_r", "demographic": "n/a", "value": "0.97", "ceiling": "0.98", "n": "1000"},
    {"check": "decoding_latents", "demographic": "sex", "value": "0.8", "chance_low": "0.4",
     "chance_high": "0.6", "p": "0.005", "n": "200"},
]  # fmt: skip


def test_checks_that_are_not_passed_are_named() -> None:
    view = generated.group_view(CHECKS)
    assert view is not None
    assert view["sentence"].startswith("Not passed: Decoding from latents, linear.")
    good = generated.group_view(CHECKS[:1])
    assert good is not None
    assert good["sentence"] == "All checks on held-out people are passed."
    assert generated.group_view([]) is None
    assert generated.fails({"check": "effect_slope", "value": "1.5"})
    assert not generated.fails({"check": "decoding_connectivity", "value": 1, "chance_high": 0.6})


def test_group_report_has_both_sections_with_figures() -> None:
    rng = np.random.default_rng(0)
    plain = make_group()
    report = replace(
        plain, phenotypes=NULL, generated=CHECKS,
        generated_values=(rng.normal(0.2, 0.1, 500), rng.normal(0.2, 0.1, 500)),
    )  # fmt: skip
    (panel,) = phenotype_panels(report)
    assert panel.title == "iq, correlation, A"
    assert b"<svg" in panel.draw(LIGHT)
    assert "standard deviation 0.10" in generated_panels(report)[0].alt
    html = assemble_group(report)
    assert 'id="group_phenotypes"' in html
    assert "No feature predicts iq better than chance" in html
    assert 'id="figure-group_generated"' in html
    assert 'id="group_phenotypes"' not in assemble_group(plain)
