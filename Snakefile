"""afterimage: brain scans to scored reconstructions. Usually started by `afterimage BIDS OUT participant`;
plain Snakemake has the same power:

    snakemake -s Snakefile --directory OUT --config bids_dir=/abs/BIDS --workflow-profile workflows/profiles/default
"""

import os

from snakemake.utils import min_version

min_version("9.16")


# One image for every rule, made by workflows/containers/Containerfile; used only with
# --software-deployment-method apptainer.
container: os.environ.get("AFTERIMAGE_IMAGE", "afterimage.sif")


wildcard_constraints:
    subject="[a-zA-Z0-9]+",
    seg="[a-zA-Z0-9]+",
    split="train|test",
    decoder="[a-zA-Z0-9]+",
    model="[a-zA-Z0-9]+",
    tokenizer="[a-zA-Z0-9]+",
    ses="(ses-[a-zA-Z0-9+]+/)?",
    datatype="eeg|meg",
    ents="(_(?!desc-|space-|res-|den-|stat-|seg-|atlas-)[a-z]+-[a-zA-Z0-9+]+)*",


include: "workflows/rules/common.smk"
include: "workflows/rules/inputs.smk"
include: "workflows/rules/preprocess.smk"
include: "workflows/rules/connectivity.smk"
include: "workflows/rules/tokenize.smk"
include: "workflows/rules/decode.smk"
include: "workflows/rules/reconstruct.smk"
include: "workflows/rules/pretrain.smk"
include: "workflows/rules/evaluate.smk"
include: "workflows/rules/report.smk"


localrules:
    all,
    preprocess,
    connectivity,
    decode,
    reconstructions,
    evaluation,


rule all:
    """Everything: reports of all subjects and of the group."""
    default_target: True
    input:
        targets("report"),


rule preprocess:
    """Stop after the trials are prepared."""
    input:
        targets("preprocess"),


rule connectivity:
    """Stop after the static connectivity is computed."""
    input:
        targets("connect"),


rule decode:
    """Stop after the decoders are fitted."""
    input:
        targets("decode"),


rule reconstructions:
    """Stop after the pictures are made."""
    input:
        targets("reconstruct"),


rule evaluation:
    """Stop after the scores are computed."""
    input:
        targets("evaluate"),


onstart:
    shell(record_command("start"))


onsuccess:
    shell(record_command("success"))


onerror:
    shell(record_command("failure"))
