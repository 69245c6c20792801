"""The files that make a folder a BIDS derivative dataset."""

from __future__ import annotations

import json
from pathlib import Path

from afterimage import __version__
from afterimage.io.atomic import write_text_if_changed

_DESCRIPTIONS = {
    "reference": "reference image: the grid of all runs of the subject",
    "brain": "brain mask on that grid",
    "clean": "corrected for slice timing and head motion, nothing regressed out",
    "denoised": "series of regions, freed of confounds, of what is outside the band and of censored volumes",
    "confounds": "confounds of a run, one row a volume",
    "preproc": "corrected for slice timing and head motion, nothing regressed out",
    "singletrial": "response to every trial, percent signal change",
    "ridge": "predicted by ridge regression from responses to stimulus features",
    "linearPixels": "pixels predicted linearly, shown as they are",
    "lowLevel": "autoencoder latents predicted linearly, decoded",
    "retrieval": "the training image that the decoder finds likeliest",
    "bayesian": "features inferred from responses by inverted encoding models",
    "meanTrainingImage": "baseline: the mean of the training images",
    "nearestTrainingImage": "baseline: the same choice as retrieval, at the size of the stimuli",
    "clusterOracle": "control: mean training image of the true image's cluster",
    "latentDiffusion": "latent diffusion started from the low-level image, guided by the predicted embedding",
    "ceiling": "the same generator fed the true features of the image",
    "shuffledBrain": "control: every unit's responses shuffled across test stimuli",
    "meanBrain": "control: the mean training response",
}

# Suffixes that are not (yet) BIDS: prepared trials, features, reconstructions, scores, reports.
_BIDSIGNORE = """\
*.html
code
logs
work
group
.snakemake
sub-*/*_trials.*
sub-*/*_split.tsv
sub-*/*_quality.*
sub-*/*_metrics.json
sub-*/*_desc-singletrial_*
sub-*/*_statmap.*
sub-*/*_boldref.*
sub-*/*_mask.*
sub-*/*_parcels.*
sub-*/*_dseg.*
sub-*/connectivity
sub-*/**/func/*
sub-*/features
sub-*/decoding
sub-*/recon
sub-*/evaluation
sub-*/generator
"""


def describe_derivatives(out_dir: Path, bids_dir: Path) -> None:
    """Write ``dataset_description.json``, ``descriptions.tsv`` and ``.bidsignore`` of the output.

    Files that already say the same are left untouched.
    """
    name = bids_dir.name
    source = bids_dir / "dataset_description.json"
    if source.is_file():
        try:
            name = str(json.loads(source.read_text(encoding="utf-8")).get("Name", name))
        except (OSError, ValueError, AttributeError, RecursionError):
            name = bids_dir.name  # the title is decoration: an unreadable one stops nothing
    description = {
        "Name": f"afterimage reconstructions of {name}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "afterimage", "Version": __version__}],
        "SourceDatasets": [{"URL": bids_dir.as_uri()}],
        "DatasetLinks": {"source": bids_dir.as_uri()},
    }
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    write_text_if_changed(out_dir / "dataset_description.json", text)
    rows = [
        "desc_id\tdescription",
        *(f"desc-{key}\t{value}" for key, value in _DESCRIPTIONS.items()),
    ]
    write_text_if_changed(out_dir / "descriptions.tsv", "\n".join(rows) + "\n")
    write_text_if_changed(out_dir / ".bidsignore", _BIDSIGNORE)
