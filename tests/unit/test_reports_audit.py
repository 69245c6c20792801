"""The page of the audit says what was checked, why, what was found, and judges by fixed limits."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from afterimage.evaluation.audit import normalisation_check, selection_check
from afterimage.reports.assemble import assemble_subject
from afterimage.reports.audit_page import assemble_audit
from afterimage.reports.audit_words import audit_checks, overall
from afterimage.reports.protocol_tables import comparison_view, published_view
from afterimage.reports.verdict import headline

example = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).resolve().parents[1] / "report_example.py"))
)
HELD_OUT = {"held_out": "clusters", "n_groups": 20, "n_test_groups": 4, "n_crossing": 0}


def states(**changes: Any) -> dict[str, str]:
    report = example.make_subject(**changes)
    return {check.id: check.state for check in audit_checks(report, headline(report))}


def rows_with(change) -> list[dict[str, Any]]:
    return [row | (change(row) or {}) for row in example.metric_rows()]


def test_every_row_of_the_audit_is_there_in_words() -> None:
    report = example.make_subject()
    checks = audit_checks(report, headline(report))
    assert [check.id for check in checks] == [
        "wrong_brains", "cluster_oracle", "training_pictures", "held_out", "generator", "linter"
    ]  # fmt: skip
    assert all(check.checked and check.why and check.found for check in checks)
    html = assemble_audit(report, "sub-01.html#audit")
    for words in ("What was checked", "Why it matters", "What was found", "Subject report",
                  'href="sub-01.html#audit"', "Shuffled brain", "1 - 1/(2K)"):  # fmt: skip
        assert words in html
    assert assemble_audit(report, "sub-01.html#audit") == html


def test_a_shuffled_brain_above_chance_fails() -> None:
    leak = rows_with(
        lambda row: {"value": 0.9, "ci_low": 0.88, "ci_high": 0.92}
        if row["label"].startswith("shuffledBrain") and row["metric"] == "twoway_clip" else None
    )  # fmt: skip
    found = states(metrics=leak)
    assert found["wrong_brains"] == "fail"
    report = example.make_subject(metrics=leak)
    state, sentence = overall(audit_checks(report, headline(report)))
    assert state == "fail" and "Do not use these scores" in sentence


def test_a_wrong_brain_that_scores_like_the_real_one_is_said() -> None:
    level = rows_with(
        lambda row: {"value": 0.5, "ci_low": 0.46, "ci_high": 0.54}
        if row["role"] == "reconstruction" else None
    )  # fmt: skip
    assert states(metrics=level)["wrong_brains"] == "warn"


@pytest.mark.parametrize(
    ("facts", "state"),
    [({}, "not run"), (HELD_OUT, "pass"), (HELD_OUT | {"n_crossing": 1}, "fail")],
)
def test_whole_groups_held_out(facts: dict[str, Any], state: str) -> None:
    audit = replace(example.make_audit(), split=facts)
    assert states(audit=audit)["held_out"] == state


def test_near_duplicates_are_counted_and_the_score_without_them_told() -> None:
    report = example.make_subject()
    row = headline(report)
    audit = replace(
        report.audit, without_duplicates={str(row["label"]): {str(row["metric"]): 0.75}}
    )
    check = audit_checks(replace(report, audit=audit), row)[2]
    assert check.state == "warn" and any("75.0 % instead of" in line for line in check.found)
    assert states(audit=replace(audit, near_duplicates=()))["training_pictures"] == "pass"


def test_the_linter_sees_ground_truth_in_selection_and_test_statistics() -> None:
    features = "sub-01_split-test_features.nc"
    fair = selection_check({"ridge_recon.nc": ["bids::sub-01_split-train_features.nc"]}, features)
    assert fair["ok"]
    gamed = selection_check({"ridge_recon.nc": [f"bids::sub-01/features/{features}"]}, features)
    assert not gamed["ok"] and features in gamed["detail"]
    assert not selection_check({}, features, unknown=["ridge_recon.nc"])["ok"]
    assert normalisation_check({"ridge": False}, {"ridge": {"a"}}, {"b"})["ok"]
    assert not normalisation_check({"ridge": True}, {"ridge": {"a"}}, {"b"})["ok"]
    leaking = normalisation_check({"ridge": False}, {"ridge": {"a", "b"}}, {"b"})
    assert not leaking["ok"] and "b" in leaking["detail"]
    audit = replace(example.make_audit(), leak_linter=[gamed])
    assert states(audit=audit)["linter"] == "fail"


def test_the_winner_is_named_or_no_difference_is_said() -> None:
    row = {
        "subject": "01", "modality": "n/a", "method": "low_level", "metric": "twoway_clip",
        "first": "ridge", "second": "net", "difference": "-0.05", "ci_low": "-0.08",
        "ci_high": "-0.02", "p": "0.001", "p_holm": "0.008", "n_tests": "8", "n": "50",
        "winner": "net", "protocol": "afterimage-1",
    }  # fmt: skip
    view = comparison_view([row], "low_level", "twoway_clip")
    assert view is not None
    assert "net is better than ridge" in view["sentences"][0]
    assert (
        "95 % interval −8.0 to −2.0 %" in view["sentences"][0] and "Holm" in view["sentences"][0]
    )
    row |= {"winner": "no difference shown", "p_holm": "0.4"}
    assert (
        "No difference shown" in comparison_view([row], "low_level", "twoway_clip")["sentences"][0]
    )
    assert comparison_view([]) is None


def test_published_rows_are_never_in_the_tables_of_our_own() -> None:
    from afterimage.reports.model import Published

    other = {
        "subject": "01", "label": "ridgeLowLevel", "decoder": "ridge", "method": "low_level",
        "role": "reconstruction", "metric": "pixcorr", "value": 0.123456, "n": 50,
        "protocol": "mindeye2; resized to 256, then 425 px; n=50; repeats averaged; one sample",
    }  # fmt: skip
    networks = {"mindeye2": {"letter": "A", "source": "Scotti", "networks": [
        {"metric": "twoway_inception", "row": "twoway_standin_clip", "network": "clip",
         "weights": "n/a", "sha256": "n/a", "comparable": False, "why": "no folder of Inception v3"},
    ]}}  # fmt: skip
    report = example.make_subject(published=Published([other], networks))
    view = published_view(report.published, report.metrics)
    assert view["table"].rows[0][0].text == "mindeye2 (A)"
    assert "no: no folder of Inception v3" in view["networks"].rows[0][4].text
    assert assemble_subject(report).count(">0.123<") == 1


def test_the_group_never_averages_two_protocols() -> None:
    from afterimage.reports.assemble import _group_means
    from afterimage.reports.figures.group import subject_panels

    group = example.make_group(4)
    name = "twoway_clip"
    rows = [dict(row) for row in group.metrics if row["metric"] == name]
    alike = replace(group, metrics=rows, headline_metric=name)
    for row in rows:
        if row["subject"].endswith("01"):
            row["protocol"] = "afterimage-1; resized to 425 x 425; n=50; repeats averaged"
        else:
            row["protocol"] = "afterimage-1; native size; n=50; repeats averaged"
    apart = _group_means(alike)
    one = _group_means(
        replace(alike, metrics=[row | {"protocol": "afterimage-1; native size"} for row in rows])
    )
    assert len(apart) == 2 * len(one)
    assert sum("resized to 425 x 425" in told for _, _, told in apart) == len(one)
    titles = [panel.title for panel in subject_panels(alike)]
    assert len(titles) == 2 and any("native size" in title for title in titles)


def test_other_brains_stand_on_the_row_of_their_decoder_and_method() -> None:
    from afterimage.reports.figures.group import subject_panels

    like = example.make_group(2).metrics[0]
    rows = [
        like | {"subject": subject, "label": f"{decoder}{fake}LowLevel", "decoder": decoder,
                "method": "low_level", "role": "audit" if fake else "reconstruction",
                "metric": metric, "value": value + shift, "chance": 0.5}
        for subject, shift in (("sub-01", 0.0), ("sub-02", 0.1))
        for metric in ("twoway_clip", "mse")
        for decoder, fake, value in (("ridge", "", 0.8), ("ridge", "ShuffledBrain", 0.4),
                                     ("ridge", "MeanBrain", 0.6), ("gone", "NoiseBrain", 0.5))
    ]  # fmt: skip
    panels = subject_panels(replace(example.make_group(2), metrics=rows))
    error, two_way = (panel.alt for panel in panels)
    assert "Low-level 85.0 % (without this brain 65.0 %)" in two_way.replace(" (ridge)", "")
    assert "(without this brain 0.4500)" in error  # of errors, the smallest
    # what has no reconstruction to stand beside keeps a row of its own
    assert all("Noise" in alt or "noise" in alt for alt in (error, two_way))
    assert not any("Mean brain" in alt or "mean brain" in alt for alt in (error, two_way))


def test_agreement_is_drawn_by_region_for_the_last_method() -> None:
    from afterimage.reports.figures.dots import agreement_panels

    like = example.metric_rows()[0]
    rows = [
        like | {"label": f"ridge{camel}", "method": method, "metric": f"encoding_agreement_{region}",
                "value": value, "ceiling": 0.6}
        for camel, method, value in (("LowLevel", "low_level", 0.2),
                                     ("LatentDiffusion", "latent_diffusion", 0.4))
        for region in ("all", "V1", "PPA")
    ]  # fmt: skip
    report = example.make_subject(metrics=[*example.metric_rows(), *rows])
    (panel,) = agreement_panels(report)
    assert panel.alt.endswith(": all units 0.400; V1 0.400; PPA 0.400")
    assert not agreement_panels(example.make_subject())
