rule extract_features:
    """Embed the pictures of one split. Test features are read by evaluation and ceiling only."""
    input:
        split="sub-{subject}/sub-{subject}_split.tsv",
        dataset=DATASET_FILE,
        generator=GENERATOR,
    output:
        features="sub-{subject}/features/sub-{subject}_split-{split}_features.nc",
    log:
        "logs/extract_features/sub-{subject}_split-{split}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(3000, 5),
        runtime=minutes(120),
    params:
        stage=stage_params(
            "extract_features",
            split=lambda wildcards: wildcards.split,
            stimuli_digest=stimuli_digest,
        ),
    shell:
        stage_command("extract_features")


rule train_decoder:
    """Fit one decoder on the training trials and predict the features of the test trials."""
    input:
        trials=lambda wildcards: trials_for("train_decoder", wildcards.subject),
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
    output:
        model="sub-{subject}/decoding/sub-{subject}_desc-{decoder}_model.safetensors",
        predictions="sub-{subject}/decoding/sub-{subject}_desc-{decoder}_predictions.nc",
    log:
        "logs/train_decoder/sub-{subject}_desc-{decoder}.log",
    wildcard_constraints:
        decoder=named([*DECODERS, *NETWORKS]),
    resources:
        **(ON_DEVICE if NETWORKS else {}),
        mem_mb=memory(6000, 8, features=4),
        runtime=minutes(240),
    params:
        stage=stage_params("train_decoder", decoders=one_decoder),
    shell:
        stage_command("train_decoder")


rule train_shared_decoder:
    """Fit one decoder on the training trials of several subjects."""
    input:
        trials=[trials_for("train_decoder", s) for s in POOLED],
        features=collect("sub-{s}/features/sub-{s}_split-train_features.nc", s=POOLED),
        splits=collect("sub-{s}/sub-{s}_split.tsv", s=ADAPTED),
    output:
        model="group/decoding/desc-{decoder}_model.safetensors",
    log:
        "logs/train_shared_decoder/desc-{decoder}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(6000, 4, features=1),
        runtime=minutes(480),
    params:
        stage=stage_params("train_shared_decoder", decoders=one_shared_decoder),
    shell:
        stage_command("train_shared_decoder")


rule apply_shared_decoder:
    """Predict the test trials of one subject with a shared decoder, adapted where it is new."""
    input:
        shared="group/decoding/desc-{decoder}_model.safetensors",
        trials=lambda wildcards: trials_for("train_decoder", wildcards.subject),
        features="sub-{subject}/features/sub-{subject}_split-train_features.nc",
    output:
        model="sub-{subject}/decoding/sub-{subject}_desc-{decoder}_model.safetensors",
        predictions="sub-{subject}/decoding/sub-{subject}_desc-{decoder}_predictions.nc",
    log:
        "logs/apply_shared_decoder/sub-{subject}_desc-{decoder}.log",
    wildcard_constraints:
        decoder=named(SHARED),
    resources:
        **ON_DEVICE,
        mem_mb=memory(3000, 8, features=4),
        runtime=minutes(120),
    params:
        stage=stage_params("apply_shared_decoder"),
    shell:
        stage_command("apply_shared_decoder")


rule decode_conditions:
    """Tell the conditions of one subject's trials apart, leaving runs out."""
    input:
        trials=lambda wildcards: trials_for("decode_conditions", wildcards.subject),
        participants=PARTICIPANTS,
    output:
        table="sub-{subject}/decoding/sub-{subject}_conditions.tsv",
        details="sub-{subject}/decoding/sub-{subject}_conditions.json",
    log:
        "logs/decode_conditions/sub-{subject}.log",
    threads: 4
    resources:
        mem_mb=memory(3000, 20),
        runtime=minutes(240),
    params:
        stage=stage_params("decode_conditions"),
    shell:
        stage_command("decode_conditions")


rule decode_group_conditions:
    """Tell the conditions of all subjects' trials apart, leaving people out."""
    input:
        trials=[trials_for("decode_conditions", s) for s in UNPICTURED],
        participants=PARTICIPANTS,
    output:
        table="group/conditions.tsv",
        details="group/conditions.json",
    log:
        "logs/decode_conditions/conditions.log",
    threads: 4
    resources:
        mem_mb=memory(6000, 20),
        runtime=minutes(480),
    params:
        stage=stage_params("decode_conditions"),
    shell:
        stage_command("decode_conditions")
