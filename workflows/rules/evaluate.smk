rule evaluate:
    """Score all reconstructions of one subject beside controls, baselines and ceilings."""
    input:
        trials="sub-{subject}/sub-{subject}_trials.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
        dataset=DATASET_FILE,
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
        test_features="sub-{subject}/features/sub-{subject}_split-test_features.nc",
        models=decoded("sub-{s}/decoding/sub-{s}_desc-{d}_model.safetensors"),
        predictions=decoded("sub-{s}/decoding/sub-{s}_desc-{d}_predictions.nc"),
        images=decoded("sub-{s}/recon/sub-{s}_desc-{d}_recon.nc", "ceiling"),
        candidates=decoded("sub-{s}/recon/sub-{s}_desc-{d}_candidates.tsv", "ceiling"),
        captions=CAPTIONS,
        generator=GENERATOR,
    output:
        metrics="sub-{subject}/evaluation/sub-{subject}_metrics.tsv",
        per_image="sub-{subject}/evaluation/sub-{subject}_images.tsv",
        audit="sub-{subject}/evaluation/sub-{subject}_audit.json",
        comparison="sub-{subject}/evaluation/sub-{subject}_comparison.tsv",
    log:
        "logs/evaluate/sub-{subject}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(3000, 3, features=1, models=1),
        runtime=minutes(240),
    params:
        stage=stage_params("evaluate"),
    shell:
        stage_command("evaluate")


rule evaluate_time:
    """Score retrieval over time and over the number of averaged repeats."""
    input:
        trials="sub-{subject}/sub-{subject}_trials.nc",
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
        test_features="sub-{subject}/features/sub-{subject}_split-test_features.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
    output:
        table="sub-{subject}/evaluation/sub-{subject}_time.tsv",
        arrays="sub-{subject}/evaluation/sub-{subject}_time.nc",
    log:
        "logs/evaluate_time/sub-{subject}.log",
    resources:
        mem_mb=memory(3000, 4),
        runtime=minutes(120),
    params:
        stage=stage_params("evaluate_time"),
    shell:
        stage_command("evaluate_time")


rule learning_curve:
    """Score decoders that were fitted on the first part of the training trials only."""
    input:
        trials=lambda wildcards: trials_for("train_decoder", wildcards.subject),
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
        test_features="sub-{subject}/features/sub-{subject}_split-test_features.nc",
        shared=lambda wildcards: collect(
            "group/decoding/desc-{d}_model.safetensors",
            d=SHARED if wildcards.subject in ADAPTED else [],
        ),
    output:
        table="sub-{subject}/evaluation/sub-{subject}_learning.tsv",
    log:
        "logs/learning_curve/sub-{subject}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(6000, 8, features=4, shared=1),
        runtime=minutes(480),
    params:
        stage=stage_params("learning_curve", decoders=learning_decoders()),
    shell:
        stage_command("learning_curve")


rule ablate_regions:
    """Score the decoders without, and with only, each network of the cortex."""
    input:
        models=decoded("sub-{s}/decoding/sub-{s}_desc-{d}_model.safetensors"),
        trials=lambda wildcards: trials_for("train_decoder", wildcards.subject),
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
        test_features="sub-{subject}/features/sub-{subject}_split-test_features.nc",
    output:
        table="sub-{subject}/evaluation/sub-{subject}_regions.tsv",
    log:
        "logs/ablate_regions/sub-{subject}.log",
    resources:
        mem_mb=memory(6000, 8, features=1, models=1),
        runtime=minutes(120),
    params:
        stage=stage_params("ablate_regions"),
    shell:
        stage_command("ablate_regions")


rule evaluate_subjects:
    """Score what other people's brains tell of each subject, and a few trials of its own."""
    input:
        trials=collect("sub-{s}/sub-{s}_trials.nc", s=COMPARED),
        features=collect("sub-{s}/features/sub-{s}_split-train_features.nc", s=COMPARED),
        test_features=collect("sub-{s}/features/sub-{s}_split-test_features.nc", s=COMPARED),
        split=collect("sub-{s}/sub-{s}_split.tsv", s=COMPARED),
    output:
        table="group/subjects.tsv",
        details="group/subjects.json",
    log:
        "logs/evaluate_subjects/group.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(6000, 20),
        runtime=minutes(480),
    params:
        stage=stage_params("evaluate_subjects", decoders=compared_networks()),
    shell:
        stage_command("evaluate_subjects")


rule predict_phenotypes:
    """Predict phenotypes of people from their connectivity, where targets are named."""
    input:
        connectivity=segmented(CONNECTED, SERIES),
        series=[file for s in SERIES for seg in SERIES[s] for file in series_files(s, seg)],
        tables=phenotype_tables(),
        motion=[
            f"{output_stem(row)}_desc-confounds_timeseries.tsv"
            for s in SERIES
            if s in SCANNED
            for rows in list(SERIES[s].values())[:1]
            for row in rows
        ],
        graphs=graphs_of_people("graphs.tsv"),
        maps=graphs_of_people("graphs.nc"),
    output:
        scores="group/phenotypes.tsv",
    log:
        "logs/predict_phenotypes/group.log",
    resources:
        mem_mb=memory(6000, 5),
        runtime=minutes(480),
    params:
        stage=stage_params("predict_phenotypes"),
    shell:
        stage_command("predict_phenotypes")
