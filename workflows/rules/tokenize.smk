rule train_tokenizer:
    """Train one tokenizer on the EEG and MEG of all people but those held out."""
    input:
        series=[file for s in SENSED for file in sensed_files(s)],
        events=[file for s in RECORDED for file in recorded_runs(s, "events.tsv")],
        participants=PARTICIPANTS,
    output:
        model="group/tokenizers/desc-{tokenizer}_model.safetensors",
        card="group/tokenizers/desc-{tokenizer}_card.tsv",
        details="group/tokenizers/desc-{tokenizer}_card.json",
        example="group/tokenizers/desc-{tokenizer}_example.safetensors",
        exposure="group/tokenizers/desc-{tokenizer}_exposure.tsv",
    log:
        "logs/train_tokenizer/desc-{tokenizer}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(6000, 20),
        runtime=minutes(720),
    params:
        stage=stage_params("train_tokenizer", tokenizers=one_tokenizer),
    shell:
        stage_command("train_tokenizer")


rule tokenize:
    """Write the EEG or MEG of one subject in the tokens of one tokenizer."""
    input:
        series=lambda wildcards: sensed_files(wildcards.subject),
        model="group/tokenizers/desc-{tokenizer}_model.safetensors",
        exposure="group/tokenizers/desc-{tokenizer}_exposure.tsv",
    output:
        tokens="sub-{subject}/tokens/sub-{subject}_desc-{tokenizer}_tokens.npz",
        card="sub-{subject}/tokens/sub-{subject}_desc-{tokenizer}_tokens.json",
    log:
        "logs/tokenize/sub-{subject}_desc-{tokenizer}.log",
    wildcard_constraints:
        subject=one_of(SENSED),
    resources:
        mem_mb=memory(1500, 20),
        runtime=minutes(60),
    params:
        stage=stage_params("tokenize"),
    shell:
        stage_command("tokenize")


rule tokenize_trials:
    """Write one subject's trials in the tokens of one tokenizer, for decoders."""
    input:
        trials="sub-{subject}/sub-{subject}_trials.nc",
        model="group/tokenizers/desc-{tokenizer}_model.safetensors",
        exposure="group/tokenizers/desc-{tokenizer}_exposure.tsv",
    output:
        trials="sub-{subject}/tokens/sub-{subject}_desc-{tokenizer}_trials.nc",
    log:
        "logs/tokenize_trials/sub-{subject}_desc-{tokenizer}.log",
    wildcard_constraints:
        subject=one_of(SENSED),
    resources:
        mem_mb=memory(1500, 20),
        runtime=minutes(60),
    params:
        stage=stage_params("tokenize_trials"),
    shell:
        stage_command("tokenize_trials")
