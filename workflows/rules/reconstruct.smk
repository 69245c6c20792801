rule train_generator:
    """Fine-tune the small generator on the subject's own training pictures (off by default)."""
    input:
        split="sub-{subject}/sub-{subject}_split.tsv",
        dataset=DATASET_FILE,
    output:
        generator=directory("sub-{subject}/generator"),
    log:
        "logs/train_generator/sub-{subject}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(3000, 5),
        runtime=minutes(240),
    params:
        stage=stage_params("train_generator"),
    shell:
        stage_command("train_generator")


rule reconstruct:
    """Turn predicted features into pictures with every reconstruction method."""
    input:
        predictions=predictions,
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
        dataset=DATASET_FILE,
        generator=GENERATOR,
    output:
        images="sub-{subject}/recon/sub-{subject}_desc-{decoder}_recon.nc",
        candidates="sub-{subject}/recon/sub-{subject}_desc-{decoder}_candidates.tsv",
    log:
        "logs/reconstruct/sub-{subject}_desc-{decoder}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(3000, 4, features=1),
        runtime=minutes(240),
    params:
        stage=stage_params("reconstruct"),
    shell:
        stage_command("reconstruct")


rule caption:
    """Write captions from the image tokens that decoders predicted, and from the true ones."""
    input:
        predictions=decoded("sub-{s}/decoding/sub-{s}_desc-{d}_predictions.nc"),
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
        test_features="sub-{subject}/features/sub-{subject}_split-test_features.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
    output:
        captions="sub-{subject}/recon/sub-{subject}_captions.tsv",
    log:
        "logs/caption/sub-{subject}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(3000, 4, features=1),
        runtime=minutes(120),
    params:
        stage=stage_params("caption"),
    shell:
        stage_command("caption")
