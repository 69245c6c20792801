rule train_generator:
    """Fine-tune the small generator on the subject's own training pictures (off by default)."""
    input:
        split="sub-{subject}/sub-{subject}_split.tsv",
        stimuli_table=str(BIDS_DIR / "stimuli.tsv"),
    output:
        generator=directory("sub-{subject}/generator"),
    log:
        "logs/train_generator/sub-{subject}.log",
    benchmark:
        "logs/benchmarks/train_generator/sub-{subject}.tsv"
    params:
        stage=stage_params("train_generator"),
    resources:
        mem_mb=8000,
    shell:
        stage_command("train_generator")


def predictions(wildcards):
    """What is turned into pictures: a decoder's predictions, or for the ceiling the true features."""
    folder = f"sub-{wildcards.subject}"
    if wildcards.decoder == "ceiling":
        return f"{folder}/features/sub-{wildcards.subject}_split-test_features.nc"
    return f"{folder}/decoding/sub-{wildcards.subject}_desc-{wildcards.decoder}_predictions.nc"


rule reconstruct:
    """Turn predicted features into pictures with every reconstruction method."""
    input:
        predictions=predictions,
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
        stimuli_table=str(BIDS_DIR / "stimuli.tsv"),
        generator=generator,
    output:
        images="sub-{subject}/recon/sub-{subject}_desc-{decoder}_recon.nc",
        candidates="sub-{subject}/recon/sub-{subject}_desc-{decoder}_candidates.tsv",
    log:
        "logs/reconstruct/sub-{subject}_desc-{decoder}.log",
    benchmark:
        "logs/benchmarks/reconstruct/sub-{subject}_desc-{decoder}.tsv"
    params:
        stage=stage_params("reconstruct"),
    resources:
        mem_mb=8000,
    shell:
        stage_command("reconstruct")
