rule reference_bold:
    """Make one subject's reference image and brain mask, the grid of all its runs."""
    input:
        bold=scan_files("bold"),
        masks=scan_files("mask"),
        boldrefs=scan_files("boldref"),
    output:
        reference="sub-{subject}/sub-{subject}_desc-reference_boldref.nii.gz",
        mask="sub-{subject}/sub-{subject}_desc-brain_mask.nii.gz",
    log:
        "logs/reference_bold/sub-{subject}.log",
    resources:
        mem_mb=memory(1500, 40),
        runtime=minutes(60),
    params:
        stage=stage_params("reference_bold"),
    shell:
        stage_command("reference_bold")


rule clean_bold:
    """Correct one run for motion and slice timing; write its series, confounds and quality."""
    input:
        bold=run_files("bold"),
        sidecars=run_files("sidecar"),
        reference="sub-{subject}/sub-{subject}_desc-reference_boldref.nii.gz",
        mask="sub-{subject}/sub-{subject}_desc-brain_mask.nii.gz",
        confounds=run_files("confounds"),
    output:
        # The largest of all; removed when what is made of it is done, unless with --notemp.
        series=temp("sub-{subject}/{ses}func/sub-{subject}{ents}_desc-clean_series.nc"),
        confounds="sub-{subject}/{ses}func/sub-{subject}{ents}_desc-confounds_timeseries.tsv",
        quality="sub-{subject}/{ses}func/sub-{subject}{ents}_desc-bold_quality.nc",
    log:
        "logs/clean_bold/sub-{subject}/{ses}sub-{subject}{ents}.log",
    resources:
        mem_mb=memory(1500, 40),
        runtime=minutes(120),
    params:
        stage=stage_params("clean_bold"),
    shell:
        stage_command("clean_bold")


rule fit_responses:
    """Estimate the response to every trial in one subject's scans, with noise ceilings."""
    input:
        series=cleaned("series.nc"),
        confounds=cleaned("timeseries.tsv"),
        events=scan_files("events"),
        reference="sub-{subject}/sub-{subject}_desc-reference_boldref.nii.gz",
        mask="sub-{subject}/sub-{subject}_desc-brain_mask.nii.gz",
        rois=scan_files("rois"),
        dataset=DATASET_FILE,
        stimuli_table=STIMULI_TABLE,
    output:
        trials="sub-{subject}/sub-{subject}_trials.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
        quality="sub-{subject}/sub-{subject}_quality.json",
        maps="sub-{subject}/sub-{subject}_desc-responses_quality.nc",
    log:
        "logs/fit_responses/sub-{subject}.log",
    wildcard_constraints:
        subject=one_of(SCANNED),
    resources:
        mem_mb=memory(1500, 20),
        runtime=minutes(120),
    params:
        stage=stage_params("fit_responses"),
    shell:
        stage_command("fit_responses")


rule clean_meeg:
    """Clean one run of EEG or MEG (filters, bad channels, reference) and resample it once."""
    input:
        recording=run_files("recording"),
        sidecars=run_files("sidecar"),
        events=run_files("events"),
    output:
        series="sub-{subject}/{ses}{datatype}/sub-{subject}{ents}_desc-clean_series.nc",
        events="sub-{subject}/{ses}{datatype}/sub-{subject}{ents}_desc-clean_events.tsv",
        quality="sub-{subject}/{ses}{datatype}/sub-{subject}{ents}_desc-meeg_quality.nc",
    log:
        "logs/clean_meeg/sub-{subject}/{ses}sub-{subject}{ents}_{datatype}.log",
    resources:
        mem_mb=memory(1500, 40),
        runtime=minutes(120),
    params:
        stage=stage_params("clean_meeg"),
    shell:
        stage_command("clean_meeg")


rule epoch_meeg:
    """Cut one subject's EEG or MEG into trials, whiten them, estimate noise ceilings."""
    input:
        series=cleaned("series.nc"),
        events=cleaned("events.tsv"),
        dataset=DATASET_FILE,
        stimuli_table=STIMULI_TABLE,
    output:
        trials="sub-{subject}/sub-{subject}_trials.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
        quality="sub-{subject}/sub-{subject}_quality.json",
        maps="sub-{subject}/sub-{subject}_desc-responses_quality.nc",
    log:
        "logs/epoch_meeg/sub-{subject}.log",
    wildcard_constraints:
        subject=one_of(RECORDED),
    resources:
        mem_mb=memory(1500, 20),
        runtime=minutes(60),
    params:
        stage=stage_params("epoch_meeg"),
    shell:
        stage_command("epoch_meeg")


rule prepare_responses:
    """Check one subject's prepared responses and write them as trials."""
    input:
        stimuli_table=str(BIDS_DIR / "stimuli.tsv"),
        responses=scan_files("responses"),
        trials=scan_files("trials"),
        units=scan_files("units"),
        sidecar=scan_files("sidecar"),
    output:
        trials="sub-{subject}/sub-{subject}_trials.nc",
        split="sub-{subject}/sub-{subject}_split.tsv",
        quality="sub-{subject}/sub-{subject}_quality.json",
    log:
        "logs/prepare_responses/sub-{subject}.log",
    wildcard_constraints:
        subject=one_of(PREPARED),
    resources:
        mem_mb=memory(1500, 5),
        runtime=minutes(30),
    params:
        stage=stage_params("prepare_responses"),
    shell:
        stage_command("prepare_responses")
