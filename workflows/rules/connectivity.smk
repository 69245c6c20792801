# Dynamic connectivity and switching couplings.


rule connect_dynamic:
    """Ask whether one subject's connectivity changes over time, against surrogates."""
    input:
        series=lambda wildcards: series_files(wildcards.subject, wildcards.seg),
    output:
        dynamic="sub-{subject}/connectivity/sub-{subject}_seg-{seg}_dynamic.nc",
        states="sub-{subject}/connectivity/sub-{subject}_seg-{seg}_states.tsv",
    log:
        "logs/connect_dynamic/sub-{subject}_seg-{seg}.log",
    params:
        stage=stage_params("connect_dynamic"),
    shell:
        stage_command("connect_dynamic")


rule couple_states:
    """Fit couplings of one subject's units that switch between hidden states."""
    input:
        series=lambda wildcards: series_files(wildcards.subject, wildcards.seg),
    output:
        coupling="sub-{subject}/connectivity/sub-{subject}_seg-{seg}_coupling.nc",
        scores="sub-{subject}/connectivity/sub-{subject}_seg-{seg}_coupling.tsv",
    log:
        "logs/couple_states/sub-{subject}_seg-{seg}.log",
    params:
        stage=stage_params("couple_states"),
    shell:
        stage_command("couple_states")
