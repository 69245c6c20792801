"""What jobs read: files of runs, subjects and groups, and the settings of one method."""


def decoders_of(subject):
    """Return the decoders that the subject's recordings can be given to, in order."""
    networks = NETWORKS if subject in RECORDED else []
    return [*DECODERS, *networks, *SHARED]


def decoded(pattern, *more):
    """Return an input function: a file of every decoder of the subject, and of some more."""
    return lambda wildcards: collect(
        pattern, s=wildcards.subject, d=[*decoders_of(wildcards.subject), *more]
    )


def paths_in(cell):
    """Return the files that a cell of the units table names, absolute."""
    return [] if cell == "n/a" else [str(BIDS_DIR / part) for part in cell.split(";")]


def scan_files(column):
    """Return an input function: the subject's files of that column, in the order of its rows."""

    def files(wildcards):
        cells = [row[column] for row in UNITS[wildcards.subject]]
        # A file that belongs to all runs, like a mask, stands in each of their rows.
        repeated = column in ("rois", "mask")
        return [
            path
            for cell in (dict.fromkeys(cells) if repeated else cells)
            for path in paths_in(cell)
        ]

    return files


def run_files(column):
    """Return an input function: the files of that column of one run."""
    return lambda wildcards: paths_in(RUNS[f"sub-{wildcards.subject}{wildcards.ents}"][column])


def cleaned(suffix):
    """Return an input function: that output of cleaning for all runs of the subject, in order."""
    label = "confounds" if suffix == "timeseries.tsv" else "clean"

    def files(wildcards):
        found = []
        for row in UNITS[wildcards.subject]:
            if row["events"] != "n/a":
                found.append(f"{output_stem(row)}_desc-{label}_{suffix}")
        return found

    return files


def output_stem(row):
    """Return the start of the paths of what is made of one run."""
    session = "" if row["session"] == "n/a" else f"ses-{row['session']}/"
    datatype = row["modality"] if row["recording"] != "n/a" else "func"
    return f"sub-{row['subject']}/{session}{datatype}/{run_prefix(run_file(row))}"


def series_files(subject, seg):
    """Return the series of one subject, of one set of regions, in the order of its runs."""
    ending = "desc-clean" if seg == "sensors" else f"seg-{seg}_desc-denoised"
    return [f"{output_stem(row)}_{ending}_series.nc" for row in SERIES[subject][seg]]


def graph_runs(subject, ending):
    """Return that output of cleaning for the runs that the subject's graph of voxels is made of."""
    rows = next(iter(SERIES[subject].values()))
    return [f"{output_stem(row)}_desc-{ending}" for row in rows]


def measured_graphs(subject):
    """Return the files of the graphs of one subject: of regions always, of voxels where enabled."""
    regions = [seg for seg in SERIES.get(subject, ()) if seg != "sensors"]
    found = [MEASURED.format(s=subject, seg=seg) for seg in regions]
    if SETTINGS.map_graphs.enabled and subject in SCANNED and regions:
        found.append(f"sub-{subject}/connectivity/sub-{subject}_graphs.nc")
    return found


def graphs_of_people(ending):
    """Return the tables of regions (graphs.tsv) of everybody, or the maps of voxels (graphs.nc)."""
    return [file for s in SERIES for file in measured_graphs(s) if file.endswith(ending)]


def factored():
    """Return the tables of factors over people, where enabled."""
    if not SETTINGS.factor_connectome.enabled or not config.get("group", True):
        return []
    # Sensors differ in place, and clusters are each person's own regions.
    shared = sorted({seg for s in SERIES for seg in SERIES[s]} - {"sensors", "clusters"})
    return [f"group/seg-{seg}_factors.tsv" for seg in shared]


def segmented(pattern, subjects):
    """Return a file of every subject and set of regions that it has series of."""
    return [pattern.format(s=s, seg=seg) for s in subjects for seg in SERIES.get(s, ())]


def connected(subject):
    """Return the connectivity of one subject: static, and what else is asked for."""
    wanted = [CONNECTED]
    wanted += [DYNAMIC] if SETTINGS.connect_dynamic.enabled else []
    wanted += [COUPLED] if SETTINGS.couple_states.enabled else []
    files = [file for pattern in wanted for file in segmented(pattern, [subject])]
    return [*files, *measured_graphs(subject)]


def phenotype_tables():
    """Return the tables of people that are there: participants.tsv, and those that targets name."""
    names = ["participants.tsv", *(t.file for t in SETTINGS.predict_phenotypes.targets.values())]
    return [str(BIDS_DIR / n) for n in dict.fromkeys(names) if (BIDS_DIR / n).is_file()]


def prepared_file(column):
    """Return an input function: the files of that column of one prepared recording."""

    def files(wildcards):
        run = f"sub-{wildcards.subject}{wildcards.ents}"
        return paths_in(PREPARED_RUNS[run, wildcards.seg][column])

    return files


def voxel_runs(wildcards):
    """Return the cleaned runs that regions are made on."""
    rows = SERIES[wildcards.subject][wildcards.seg]
    return [f"{output_stem(row)}_desc-clean_series.nc" for row in rows]


def atlas_files(wildcards):
    """Return the image of an atlas, and its table where there is one beside it."""
    if wildcards.seg not in SETTINGS.parcellate.atlases:
        return []
    image = (
        BIDS_DIR / SETTINGS.parcellate.atlases[wildcards.seg]
    )  # an absolute path stays as it is
    table = Path(str(image).removesuffix(".gz").removesuffix(".nii") + ".tsv")
    # The table of a BIDS atlas may lack entities of its image, such as the resolution.
    tables = applicable_files(image, image.parent, extension=".tsv")
    return [str(image), *map(str, [table] if table.is_file() else tables[-1:])]


def one_of(subjects):
    """Return a pattern of these subjects; cheap in the usual case that it is all or none."""
    if not subjects:
        return "(?!)none"
    return "[a-zA-Z0-9]+" if len(subjects) == len(SUBJECTS) else "|".join(subjects)


def stimuli_digest(wildcards):
    """Return a digest of the names and sizes of the pictures, so that new test pictures are seen."""
    return STIMULI_DIGEST if wildcards.split == "test" else ""


def predictions(wildcards):
    """What is turned into pictures: a decoder's predictions, or for the ceiling the true features."""
    folder = f"sub-{wildcards.subject}"
    if wildcards.decoder == "ceiling":
        return f"{folder}/features/sub-{wildcards.subject}_split-test_features.nc"
    return f"{folder}/decoding/sub-{wildcards.subject}_desc-{wildcards.decoder}_predictions.nc"


def named(names):
    """Return a pattern of these names and no other."""
    return "|".join(names) or "(?!)none"


def one_decoder(wildcards):
    """Return only the decoder of this job, so that editing another one does not rerun it."""
    section = SETTINGS.section("train_decoder")["decoders"]
    return {wildcards.decoder: section[wildcards.decoder]}


def one_shared_decoder(wildcards):
    """Return only the shared decoder of this job, so that editing another one reruns none."""
    section = SETTINGS.section("train_shared_decoder")["decoders"]
    return {wildcards.decoder: section[wildcards.decoder]}


def compared_networks():
    """Return the networks that subjects are compared by: the stage's own, and those trained."""
    trained = SETTINGS.section("train_decoder")["decoders"]
    own = SETTINGS.section("evaluate_subjects")["decoders"]
    return {name: trained[name] for name in NETWORKS} | own


def learning_decoders():
    """Return the decoders of learning curves: the stage's own, or those that are trained."""
    own = SETTINGS.section("learning_curve")["decoders"]
    return own or SETTINGS.section("train_decoder")["decoders"]


def one_model(wildcards):
    """Return only the masked model of this job, so that editing another one does not rerun it."""
    section = SETTINGS.section("pretrain_series")["models"]
    return {wildcards.model: section[wildcards.model]}


def group_series(wildcards):
    """Return the series of all people over one set of regions."""
    return [
        file
        for subject in SERIES
        if wildcards.seg in SERIES[subject]
        for file in series_files(subject, wildcards.seg)
    ]


def pretraining_tables():
    """Return the tables of every masked model and set of regions, where pretraining is asked for."""
    if not SETTINGS.pretrain_series.enabled:
        return []
    endings = ["pretext.tsv", *(["probes.tsv"] if SETTINGS.probe_series.labels else [])]
    segs = sorted({seg for subject in SERIES for seg in SERIES[subject]})
    pattern = "group/pretraining/seg-{seg}_desc-{model}_{ending}"
    return collect(pattern, seg=segs, model=SETTINGS.pretrain_series.models, ending=endings)


def one_tokenizer(wildcards):
    """Return only the tokenizer of this job, so that editing another one does not rerun it."""
    section = SETTINGS.section("train_tokenizer")["tokenizers"]
    return {wildcards.tokenizer: section[wildcards.tokenizer]}


def recorded_runs(subject, suffix):
    """Return that output of cleaning for all EEG or MEG runs of the subject, in order."""
    return [f"{output_stem(row)}_desc-clean_{suffix}" for row in UNITS[subject]]


def sensed_files(subject):
    """Return what of a subject is coded: its cleaned runs, or its prepared trials."""
    if subject in RECORDED:
        return recorded_runs(subject, "series.nc")
    return [f"sub-{subject}/sub-{subject}_trials.nc"]


def tokenizer_cards():
    """Return the card of every tokenizer, where they are asked for."""
    if not (SETTINGS.train_tokenizer.enabled and SENSED and config.get("group", True)):
        return []
    pattern = "group/tokenizers/desc-{t}_card.tsv"
    return collect(pattern, t=SETTINGS.train_tokenizer.tokenizers)


def tokenized():
    """Return the tokens of every subject, where they are asked for."""
    pattern = "sub-{s}/tokens/sub-{s}_desc-{t}_tokens.npz"
    names = SETTINGS.train_tokenizer.tokenizers if tokenizer_cards() else []
    return collect(pattern, s=SENSED, t=names)


def one_token_model(wildcards):
    """Return only the masked-token model of this job, so that editing another one reruns none."""
    section = SETTINGS.section("pretrain_tokens")["models"]
    return {wildcards.model: section[wildcards.model]}


def tokenizer_of(pattern):
    """Return an input function: that file of the tokenizer whose tokens a model reads."""
    models = SETTINGS.pretrain_tokens.models
    return lambda wildcards: collect(pattern, t=models[wildcards.model].tokenizer, s=SENSED)


def token_models(tokenizer=None):
    """Return the names of the masked-token models, of one tokenizer or all; none where not asked."""
    if not (SETTINGS.pretrain_tokens.enabled and tokenizer_cards()):
        return []
    models = SETTINGS.pretrain_tokens.models.items()
    return [name for name, one in models if tokenizer in (None, one.tokenizer)]


def models_of_tokens(wildcards):
    """Return the masked-token models that read the tokens of one tokenizer."""
    pattern = "group/tokenmodels/desc-{m}_model.safetensors"
    return collect(pattern, m=token_models(wildcards.tokenizer))


def token_tables():
    """Return the tables of masked-token models and of probes of tokens, where asked for."""
    files = collect("group/tokenmodels/desc-{m}_pretext.tsv", m=token_models())
    if tokenizer_cards() and SETTINGS.probe_tokens.contrasts:
        pattern = "group/tokenizers/desc-{t}_probes.tsv"
        files += collect(pattern, t=SETTINGS.train_tokenizer.tokenizers)
    return files


def trials_for(stage, subject):
    """Return the trials that decoders of a subject take: signals, or tokens where so asked."""
    tokens = getattr(SETTINGS, stage).tokens
    if tokens and tokenizer_cards() and subject in SENSED:
        return f"sub-{subject}/tokens/sub-{subject}_desc-{tokens}_trials.nc"
    return f"sub-{subject}/sub-{subject}_trials.nc"


def told_apart(subject):
    """Return the table of conditions of one subject; none where there are pictures."""
    return collect(
        "sub-{s}/decoding/sub-{s}_conditions.tsv", s=[s for s in [subject] if s in UNPICTURED]
    )


def timed(subject):
    """Return scores over time, amounts of data and regions of a subject; none without pictures."""
    tables = ["sub-{s}/evaluation/sub-{s}_time.tsv"]
    if SETTINGS.learning_curve.enabled:
        tables.append("sub-{s}/evaluation/sub-{s}_learning.tsv")
    if SETTINGS.ablate_regions.enabled and subject not in RECORDED:
        tables.append("sub-{s}/evaluation/sub-{s}_regions.tsv")
    return collect(tables, s=[s for s in [subject] if s in PICTURED])


def trials(wildcards):
    """Return the trials of one subject; a subject at rest has none."""
    return collect(
        "sub-{s}/sub-{s}_trials.nc", s=[s for s in [wildcards.subject] if s in TRIALLED]
    )


def scores(wildcards):
    """Return the scores of one subject, or of all; a subject without pictures has none."""
    subjects = [wildcards.subject] if hasattr(wildcards, "subject") else PICTURED
    pattern = "sub-{s}/evaluation/sub-{s}_metrics.tsv"
    return collect(pattern, s=[subject for subject in subjects if subject in PICTURED])
