"""Figures by the name ``spec/*.yml`` calls them: lists of panels, empty where data are absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from afterimage.reports.figures import (
    ablation,
    connectivity,
    decoding,
    dots,
    dynamic,
    estimates,
    evoked,
    factors,
    graphs,
    group,
    learning,
    meeg,
    phenotypes,
    pretraining,
    responses,
    scans,
    subjects,
    time_resolved,
    token_probes,
    tokenizers,
)
from afterimage.reports.model import GroupReport, SubjectReport
from afterimage.reports.page import Panel

SUBJECT_FIGURES: Mapping[str, Callable[[SubjectReport], list[Panel]]] = {
    "scan_overview": scans.overview_panels,
    "scan_carpets": scans.carpet_panels,
    "scan_more_carpets": scans.more_carpet_panels,
    "scan_motion": scans.motion_panels,
    "scan_tsnr": scans.tsnr_panels,
    "scan_masks": scans.mask_panels,
    "meeg_layout": meeg.layout_panels,
    "meeg_segments": meeg.segment_panels,
    "meeg_spectra": meeg.spectra_panels,
    "meeg_more_spectra": meeg.more_spectra_panels,
    "meeg_components": meeg.component_panels,
    "meeg_whitening": evoked.whitening_panels,
    "evoked_butterfly": evoked.butterfly_panels,
    "evoked_topographies": evoked.topography_panels,
    "evoked_ceiling": evoked.ceiling_panels,
    "evoked_dropped": evoked.dropped_panels,
    "response_onsets": estimates.onset_panels,
    "response_design": estimates.design_panels,
    "response_hrf": estimates.hrf_panels,
    "response_maps": estimates.map_panels,
    "response_spread": responses.spread_panels,
    "response_reliability": responses.reliability_panels,
    "connectivity_series": connectivity.series_panels,
    "connectivity_matrices": connectivity.matrix_panels,
    "connectivity_connectome": connectivity.connectome_panels,
    "dynamic": lambda report: [
        panel for part in report.dynamic for panel in dynamic.dynamic_panels(part)
    ],
    "graph_modules": graphs.module_panels,
    "graph_voxels": graphs.voxel_panels,
    "decoding_fit": decoding.fit_panels,
    "decoding_penalties": decoding.penalty_panels,
    "decoding_blocks": decoding.block_panels,
    "time_windows": time_resolved.window_panels,
    "time_generalisation": time_resolved.generalisation_panels,
    "time_repetitions": time_resolved.repetition_panels,
    "learning_curve": learning.learning_panels,
    "ablation": ablation.ablation_panels,
    "condition_scores": time_resolved.condition_panels,
    "scores": dots.score_panels,
    "agreement": dots.agreement_panels,
    "audit": dots.audit_panels,
}

GROUP_FIGURES: Mapping[str, Callable[[GroupReport], list[Panel]]] = {
    "group_conditions": time_resolved.condition_panels,
    "group_scores": group.subject_panels,
    "group_captions": group.caption_panels,
    "group_subjects": subjects.ladder_panels,
    "group_similarity": connectivity.similarity_panels,
    "group_matrices": connectivity.matrix_panels,
    "group_connectome": connectivity.connectome_panels,
    "group_factors": factors.factor_panels,
    "pretext": pretraining.pretext_panels,
    "probes": pretraining.probe_panels,
    "token_return": tokenizers.return_panels,
    "token_meaning": tokenizers.meaning_panels,
    "token_guesses": token_probes.guess_panels,
    "token_probes": token_probes.told_panels,
    "group_phenotypes": phenotypes.phenotype_panels,
    "group_generated": phenotypes.generated_panels,
}
