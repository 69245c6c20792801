rule report_subject:
    """Write the report of one subject."""
    input:
        trials=trials,
        metrics=scores,
        connectivity=lambda wildcards: connected(wildcards.subject),
        conditions=lambda wildcards: told_apart(wildcards.subject),
        timing=lambda wildcards: timed(wildcards.subject),
    output:
        report=report(
            "sub-{subject}.html",
            caption="../report/subject.rst",
            category="Subjects",
            labels={"subject": "{subject}"},
        ),
    log:
        "logs/report_subject/sub-{subject}.log",
    resources:
        mem_mb=memory(1500, 5),
        runtime=minutes(60),
    params:
        stage=stage_params("report_subject", **workflow_values(SETTINGS)),
    shell:
        stage_command("report_subject")


rule report_group:
    """Write the report of all subjects."""
    input:
        trials=collect("sub-{s}/sub-{s}_trials.nc", s=TRIALLED),
        metrics=scores,
        conditions=GROUP_CONDITIONS,
        subjects=["group/subjects.tsv"] if COMPARED else [],
        connectivity="group/connectivity.tsv" if SERIES else [],
        pretraining=pretraining_tables(),
        tokenizers=[*tokenizer_cards(), *token_tables()],
        phenotypes=(
            "group/phenotypes.tsv" if SERIES and SETTINGS.predict_phenotypes.targets else []
        ),
        generative=(
            "group/generative.tsv" if SERIES and SETTINGS.generate_connectivity.enabled else []
        ),
        factors=factored(),
    output:
        report=report("group.html", caption="../report/group.rst", category="Group"),
        metrics="group/metrics.tsv",
        comparison="group/comparison.tsv",
    log:
        "logs/report_group/group.log",
    resources:
        mem_mb=memory(3000, 5),
        runtime=minutes(60),
    params:
        stage=stage_params("report_group", **workflow_values(SETTINGS)),
    shell:
        stage_command("report_group")
