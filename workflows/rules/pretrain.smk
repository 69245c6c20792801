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
        mem_mb=8000,
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
    params:
        stage=stage_params("probe_series"),
    shell:
        stage_command("probe_series")
