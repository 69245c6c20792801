"""Figures by the name ``spec/*.yml`` calls them: lists of panels, empty where data are absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from afterimage.reports.figures import decoding, dots, group, responses
from afterimage.reports.model import GroupReport, Panel, SubjectReport

SUBJECT_FIGURES: Mapping[str, Callable[[SubjectReport], list[Panel]]] = {
    "response_spread": responses.spread_panels,
    "response_reliability": responses.reliability_panels,
    "decoding_fit": decoding.fit_panels,
    "decoding_penalties": decoding.penalty_panels,
    "decoding_blocks": decoding.block_panels,
    "scores": dots.score_panels,
    "audit": dots.audit_panels,
}

GROUP_FIGURES: Mapping[str, Callable[[GroupReport], list[Panel]]] = {
    "group_scores": group.subject_panels,
}
