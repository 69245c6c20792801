rule prepare_responses:
    """Check one subject's prepared responses and write them as trials."""
    input:
        stimuli_table=str(BIDS_DIR / "stimuli.tsv"),
        responses=dataset_file("responses"),
        trials=dataset_file("trials"),
        units=dataset_file("units"),
        sidecar=dataset_file("sidecar"),
    output:
        trials="sub-{subject}/sub-{subject}_trials.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
        quality="sub-{subject}/sub-{subject}_quality.json",
    log:
        "logs/prepare_responses/sub-{subject}.log",
    params:
        stage=stage_params("prepare_responses"),
    shell:
        stage_command("prepare_responses")
