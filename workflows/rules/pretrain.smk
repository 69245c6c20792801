rule pretrain_series:
    """Pretrain one masked model on the series of all people but those held out."""
    input:
        series=group_series,
        participants=PARTICIPANTS,
    output:
        model="group/pretraining/seg-{seg}_desc-{model}_model.safetensors",
        pretext="group/pretraining/seg-{seg}_desc-{model}_pretext.tsv",
        example="group/pretraining/seg-{seg}_desc-{model}_example.safetensors",
    log:
        "logs/pretrain_series/seg-{seg}_desc-{model}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(6000, 20),
        runtime=minutes(720),
    params:
        stage=stage_params("pretrain_series", models=one_model),
    shell:
        stage_command("pretrain_series")


rule probe_series:
    """Ask a pretrained model for labels of people, beside all that rivals it."""
    input:
        series=group_series,
        model="group/pretraining/seg-{seg}_desc-{model}_model.safetensors",
        participants=PARTICIPANTS,
    output:
        table="group/pretraining/seg-{seg}_desc-{model}_probes.tsv",
        details="group/pretraining/seg-{seg}_desc-{model}_probes.json",
    log:
        "logs/probe_series/seg-{seg}_desc-{model}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(6000, 20),
        runtime=minutes(480),
    params:
        stage=stage_params("probe_series"),
    shell:
        stage_command("probe_series")


rule pretrain_tokens:
    """Train one masked-token model on the tokens of the people its tokenizer was trained on."""
    input:
        tokens=tokenizer_of("sub-{s}/tokens/sub-{s}_desc-{t}_tokens.npz"),
        tokenizer=tokenizer_of("group/tokenizers/desc-{t}_model.safetensors"),
        exposure=tokenizer_of("group/tokenizers/desc-{t}_exposure.tsv"),
        participants=PARTICIPANTS,
    output:
        model="group/tokenmodels/desc-{model}_model.safetensors",
        pretext="group/tokenmodels/desc-{model}_pretext.tsv",
        exposure="group/tokenmodels/desc-{model}_exposure.tsv",
    log:
        "logs/pretrain_tokens/desc-{model}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(6000, 20),
        runtime=minutes(720),
    params:
        stage=stage_params("pretrain_tokens", models=one_token_model),
    shell:
        stage_command("pretrain_tokens")


rule probe_tokens:
    """Ask tokens, and models of tokens, for labels of trials, beside linear models of the signal."""
    input:
        trials=collect("sub-{s}/sub-{s}_trials.nc", s=[s for s in SENSED if s in TRIALLED]),
        tokenizer="group/tokenizers/desc-{tokenizer}_model.safetensors",
        exposure="group/tokenizers/desc-{tokenizer}_exposure.tsv",
        models=models_of_tokens,
        participants=PARTICIPANTS,
    output:
        table="group/tokenizers/desc-{tokenizer}_probes.tsv",
        details="group/tokenizers/desc-{tokenizer}_probes.json",
    log:
        "logs/probe_tokens/desc-{tokenizer}.log",
    resources:
        **ON_DEVICE,
        mem_mb=memory(6000, 20),
        runtime=minutes(720),
    params:
        stage=stage_params("probe_tokens"),
    shell:
        stage_command("probe_tokens")
