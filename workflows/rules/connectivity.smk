rule parcellate:
    """Say which voxels of one subject make up each region: an atlas, masks, or clusters."""
    input:
        series=voxel_runs,
        bold=scan_files("bold"),
        mask="sub-{subject}/sub-{subject}_desc-brain_mask.nii.gz",
        dataset=DATASET_FILE,
        atlas=atlas_files,
        rois=scan_files("rois"),
    output:
        parcels="sub-{subject}/sub-{subject}_seg-{seg}_parcels.nc",
        table="sub-{subject}/sub-{subject}_seg-{seg}_parcels.tsv",
    log:
        "logs/parcellate/sub-{subject}_seg-{seg}.log",
    resources:
        mem_mb=memory(1500, 20),
        runtime=minutes(60),
    params:
        stage=stage_params("parcellate"),
    shell:
        stage_command("parcellate")


rule extract_series:
    """Take the series of every region from one cleaned run, freed of confounds."""
    input:
        series="sub-{subject}/{ses}func/sub-{subject}{ents}_desc-clean_series.nc",
        confounds="sub-{subject}/{ses}func/sub-{subject}{ents}_desc-confounds_timeseries.tsv",
        parcels="sub-{subject}/sub-{subject}_seg-{seg}_parcels.nc",
    output:
        series="sub-{subject}/{ses}func/sub-{subject}{ents}_seg-{seg}_desc-denoised_series.nc",
        table="sub-{subject}/{ses}func/sub-{subject}{ents}_seg-{seg}_desc-denoised_timeseries.tsv",
    log:
        "logs/extract_series/sub-{subject}/{ses}sub-{subject}{ents}_seg-{seg}.log",
    wildcard_constraints:
        subject=one_of(SCANNED),
    resources:
        mem_mb=memory(1500, 20),
        runtime=minutes(60),
    params:
        stage=stage_params("extract_series"),
    shell:
        stage_command("extract_series")


rule prepare_series:
    """Check one recording of prepared series and write it as a series."""
    input:
        series=prepared_file("series"),
        sidecar=prepared_file("sidecar"),
        units=prepared_file("units"),
        confounds=prepared_file("confounds"),
    output:
        series="sub-{subject}/{ses}func/sub-{subject}{ents}_seg-{seg}_desc-denoised_series.nc",
        table="sub-{subject}/{ses}func/sub-{subject}{ents}_seg-{seg}_desc-denoised_timeseries.tsv",
    log:
        "logs/prepare_series/sub-{subject}/{ses}sub-{subject}{ents}_seg-{seg}.log",
    wildcard_constraints:
        subject=one_of(PREPARED_SERIES),
    resources:
        mem_mb=memory(1500, 20),
        runtime=minutes(30),
    params:
        stage=stage_params("prepare_series"),
    shell:
        stage_command("prepare_series")


rule connect:
    """Compute the static connectivity of one subject's recordings."""
    input:
        series=lambda wildcards: series_files(wildcards.subject, wildcards.seg),
    output:
        connectivity="sub-{subject}/connectivity/sub-{subject}_seg-{seg}_connectivity.nc",
    log:
        "logs/connect/sub-{subject}_seg-{seg}.log",
    resources:
        mem_mb=memory(1500, 20),
        runtime=minutes(120),
    params:
        stage=stage_params("connect"),
    shell:
        stage_command("connect")


rule measure_graphs:
    """Measure the graph of one subject's regions."""
    input:
        connectivity="sub-{subject}/connectivity/sub-{subject}_seg-{seg}_connectivity.nc",
    output:
        table="sub-{subject}/connectivity/sub-{subject}_seg-{seg}_graphs.tsv",
    log:
        "logs/measure_graphs/sub-{subject}_seg-{seg}.log",
    resources:
        mem_mb=memory(1500, 5),
        runtime=minutes(60),
    params:
        stage=stage_params("measure_graphs"),
    shell:
        stage_command("measure_graphs")


rule map_graphs:
    """Map the graph of one subject's voxels."""
    input:
        series=lambda wildcards: graph_runs(wildcards.subject, "clean_series.nc"),
        confounds=lambda wildcards: graph_runs(wildcards.subject, "confounds_timeseries.tsv"),
        bold=scan_files("bold"),
    output:
        graphs="sub-{subject}/connectivity/sub-{subject}_graphs.nc",
    log:
        "logs/map_graphs/sub-{subject}.log",
    resources:
        mem_mb=memory(3000, 20),
        runtime=minutes(240),
    params:
        stage=stage_params("map_graphs"),
    shell:
        stage_command("map_graphs")


rule factor_connectome:
    """Factor the time-resolved connectivity of all subjects, and find blocks in its graphs."""
    input:
        series=lambda wildcards: [
            file
            for s in SERIES
            if wildcards.seg in SERIES[s]
            for file in series_files(s, wildcards.seg)
        ],
    output:
        factors="group/seg-{seg}_factors.nc",
        table="group/seg-{seg}_factors.tsv",
    log:
        "logs/factor_connectome/seg-{seg}.log",
    conda:
        "../envs/graph-tool.yaml"
    resources:
        mem_mb=memory(6000, 20),
        runtime=minutes(480),
    params:
        stage=stage_params("factor_connectome"),
    shell:
        stage_command("factor_connectome")


rule evaluate_connectivity:
    """Tell people apart by their connectivity, and average it over people."""
    input:
        connectivity=segmented(CONNECTED, SERIES),
        series=[file for s in SERIES for seg in SERIES[s] for file in series_files(s, seg)],
    output:
        scores="group/connectivity.tsv",
        matrices="group/connectivity.nc",
    log:
        "logs/evaluate_connectivity/group.log",
    resources:
        mem_mb=memory(3000, 5),
        runtime=minutes(240),
    params:
        stage=stage_params("evaluate_connectivity"),
    shell:
        stage_command("evaluate_connectivity")


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
    resources:
        mem_mb=memory(1500, 20),
        runtime=minutes(480),
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
    resources:
        mem_mb=memory(3000, 20),
        runtime=minutes(480),
    params:
        stage=stage_params("couple_states"),
    shell:
        stage_command("couple_states")


rule generate_connectivity:
    """Generate connectivity by demographics, and check it on held-out people."""
    input:
        connectivity=segmented(CONNECTED, SERIES),
        tables=PARTICIPANTS,
    output:
        checks="group/generative.tsv",
        arrays="group/generative.nc",
    log:
        "logs/generate_connectivity/group.log",
    resources:
        mem_mb=memory(3000, 5),
        runtime=minutes(240),
    params:
        stage=stage_params("generate_connectivity"),
    shell:
        stage_command("generate_connectivity")
