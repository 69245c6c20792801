rule train_tokenizer:
    """Train one tokenizer on the EEG and MEG of all people but those held out."""
    input:
        series=[file for s in RECORDED for file in recorded_runs(s, "series.nc")],
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
        mem_mb=8000,
    params:
        stage=stage_params("train_tokenizer", tokenizers=one_tokenizer),
    shell:
        stage_command("train_tokenizer")


rule tokenize:
    """Write the EEG or MEG of one subject in the tokens of one tokenizer."""
    input:
        series=lambda wildcards: recorded_runs(wildcards.subject, "series.nc"),
        model="group/tokenizers/desc-{tokenizer}_model.safetensors",
        exposure="group/tokenizers/desc-{tokenizer}_exposure.tsv",
    output:
        tokens="sub-{subject}/tokens/sub-{subject}_desc-{tokenizer}_tokens.npz",
        card="sub-{subject}/tokens/sub-{subject}_desc-{tokenizer}_tokens.json",
    log:
        "logs/tokenize/sub-{subject}_desc-{tokenizer}.log",
    wildcard_constraints:
        subject=one_of(RECORDED),
    params:
        stage=stage_params("tokenize"),
    shell:
        stage_command("tokenize")
