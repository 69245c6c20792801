rule evaluate:
    """Score all reconstructions of one subject beside controls, baselines and ceilings."""
    input:
        trials="sub-{subject}/sub-{subject}_trials.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
        dataset=DATASET_FILE,
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
        test_features="sub-{subject}/features/sub-{subject}_split-test_features.nc",
        models=collect(
            "sub-{{subject}}/decoding/sub-{{subject}}_desc-{d}_model.safetensors", d=DECODERS
        ),
        predictions=collect(
            "sub-{{subject}}/decoding/sub-{{subject}}_desc-{d}_predictions.nc", d=DECODERS
        ),
        images=collect(
            "sub-{{subject}}/recon/sub-{{subject}}_desc-{d}_recon.nc", d=[*DECODERS, "ceiling"]
        ),
        candidates=collect(
            "sub-{{subject}}/recon/sub-{{subject}}_desc-{d}_candidates.tsv",
            d=[*DECODERS, "ceiling"],
        ),
        generator=GENERATOR,
    output:
        metrics="sub-{subject}/evaluation/sub-{subject}_metrics.tsv",
        per_image="sub-{subject}/evaluation/sub-{subject}_images.tsv",
        audit="sub-{subject}/evaluation/sub-{subject}_audit.json",
    log:
        "logs/evaluate/sub-{subject}.log",
    params:
        stage=stage_params("evaluate"),
    shell:
        stage_command("evaluate")
