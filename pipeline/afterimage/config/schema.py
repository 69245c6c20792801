"""The whole configuration: one section a stage, named like the stage."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from afterimage.settings import Settings
from afterimage.stages.ablate_regions import Config as AblateRegions
from afterimage.stages.apply_shared_decoder import Config as ApplySharedDecoder
from afterimage.stages.caption import Config as Caption
from afterimage.stages.clean_bold import Config as CleanBold
from afterimage.stages.clean_meeg import Config as CleanMeeg
from afterimage.stages.connect import Config as Connect
from afterimage.stages.connect_dynamic import Config as ConnectDynamic
from afterimage.stages.couple_states import Config as CoupleStates
from afterimage.stages.decode_conditions import Config as DecodeConditions
from afterimage.stages.epoch_meeg import Config as EpochMeeg
from afterimage.stages.evaluate import Config as Evaluate
from afterimage.stages.evaluate_connectivity import Config as EvaluateConnectivity
from afterimage.stages.evaluate_subjects import Config as EvaluateSubjects
from afterimage.stages.evaluate_time import Config as EvaluateTime
from afterimage.stages.extract_features import Config as ExtractFeatures
from afterimage.stages.extract_series import Config as ExtractSeries
from afterimage.stages.factor_connectome import Config as FactorConnectome
from afterimage.stages.fit_responses import Config as FitResponses
from afterimage.stages.generate_connectivity import Config as GenerateConnectivity
from afterimage.stages.learning_curve import Config as LearningCurve
from afterimage.stages.map_graphs import Config as MapGraphs
from afterimage.stages.measure_graphs import Config as MeasureGraphs
from afterimage.stages.parcellate import Config as Parcellate
from afterimage.stages.predict_phenotypes import Config as PredictPhenotypes
from afterimage.stages.prepare_responses import Config as PrepareResponses
from afterimage.stages.prepare_series import Config as PrepareSeries
from afterimage.stages.pretrain_series import Config as PretrainSeries
from afterimage.stages.pretrain_tokens import Config as PretrainTokens
from afterimage.stages.probe_series import Config as ProbeSeries
from afterimage.stages.probe_tokens import Config as ProbeTokens
from afterimage.stages.reconstruct import Config as Reconstruct
from afterimage.stages.reference_bold import Config as ReferenceBold
from afterimage.stages.report_group import Config as ReportGroup
from afterimage.stages.report_subject import Config as ReportSubject
from afterimage.stages.tokenize import Config as Tokenize
from afterimage.stages.tokenize_trials import Config as TokenizeTrials
from afterimage.stages.train_decoder import Config as TrainDecoder
from afterimage.stages.train_generator import Config as TrainGenerator
from afterimage.stages.train_shared_decoder import Config as TrainSharedDecoder
from afterimage.stages.train_tokenizer import Config as TrainTokenizer

#: Sections that hold entries under names the user chooses: (section, key).
NAMED_ENTRIES = (
    ("connect", "measures"),
    ("extract_features", "encoders"),
    ("train_decoder", "decoders"),
    ("train_shared_decoder", "decoders"),
    ("reconstruct", "methods"),
    ("decode_conditions", "classifiers"),
    ("evaluate_subjects", "decoders"),
    ("pretrain_series", "models"),
    ("train_tokenizer", "tokenizers"),
    ("probe_tokens", "baselines"),
)


class Config(Settings):
    """Everything that can be set. What is left out keeps its default."""

    random_state: int = Field(
        0, ge=0, description="root seed; every stage without a seed of its own uses it"
    )
    reference_bold: ReferenceBold = ReferenceBold()
    clean_bold: CleanBold = CleanBold()
    parcellate: Parcellate = Parcellate()
    extract_series: ExtractSeries = ExtractSeries()
    prepare_series: PrepareSeries = PrepareSeries()
    connect: Connect = Connect()
    measure_graphs: MeasureGraphs = MeasureGraphs()
    map_graphs: MapGraphs = MapGraphs()
    factor_connectome: FactorConnectome = FactorConnectome()
    fit_responses: FitResponses = FitResponses()
    clean_meeg: CleanMeeg = CleanMeeg()
    epoch_meeg: EpochMeeg = EpochMeeg()
    train_tokenizer: TrainTokenizer = TrainTokenizer()
    tokenize: Tokenize = Tokenize()
    prepare_responses: PrepareResponses = PrepareResponses()
    tokenize_trials: TokenizeTrials = TokenizeTrials()
    connect_dynamic: ConnectDynamic = ConnectDynamic()
    couple_states: CoupleStates = CoupleStates()
    decode_conditions: DecodeConditions = DecodeConditions()
    train_generator: TrainGenerator = TrainGenerator()
    extract_features: ExtractFeatures = ExtractFeatures()
    train_decoder: TrainDecoder = TrainDecoder()
    train_shared_decoder: TrainSharedDecoder = TrainSharedDecoder()
    apply_shared_decoder: ApplySharedDecoder = ApplySharedDecoder()
    reconstruct: Reconstruct = Reconstruct()
    caption: Caption = Caption()
    evaluate: Evaluate = Evaluate()
    evaluate_time: EvaluateTime = EvaluateTime()
    learning_curve: LearningCurve = LearningCurve()
    ablate_regions: AblateRegions = AblateRegions()
    evaluate_subjects: EvaluateSubjects = EvaluateSubjects()
    evaluate_connectivity: EvaluateConnectivity = EvaluateConnectivity()
    pretrain_series: PretrainSeries = PretrainSeries()
    probe_series: ProbeSeries = ProbeSeries()
    pretrain_tokens: PretrainTokens = PretrainTokens()
    probe_tokens: ProbeTokens = ProbeTokens()
    predict_phenotypes: PredictPhenotypes = PredictPhenotypes()
    generate_connectivity: GenerateConnectivity = GenerateConnectivity()
    report_subject: ReportSubject = ReportSubject()
    report_group: ReportGroup = ReportGroup()

    @field_validator("train_decoder", "train_shared_decoder")
    @classmethod
    def _labels(
        cls, section: TrainDecoder | TrainSharedDecoder
    ) -> TrainDecoder | TrainSharedDecoder:
        for name in section.decoders:
            if not name.isalnum() or not name.isascii() or name == "ceiling":
                raise ValueError(
                    f"the decoder name {name!r} must be letters and digits only (it becomes part "
                    "of file names), and not 'ceiling'"
                )
        return section

    @field_validator("pretrain_series", "pretrain_tokens")
    @classmethod
    def _model_names(
        cls, section: PretrainSeries | PretrainTokens
    ) -> PretrainSeries | PretrainTokens:
        for name in section.models:
            if not name.isalnum() or not name.isascii():
                raise ValueError(
                    f"the model name {name!r} must be letters and digits only (it becomes part of "
                    "file names)"
                )
        return section

    @field_validator("train_tokenizer")
    @classmethod
    def _tokenizer_names(cls, section: TrainTokenizer) -> TrainTokenizer:
        for name in section.tokenizers:
            if not name.isalnum() or not name.isascii():
                raise ValueError(
                    f"the tokenizer name {name!r} must be letters and digits only (it becomes part "
                    "of file names)"
                )
        return section

    @model_validator(mode="after")
    def _decoders_have_one_name_each(self) -> Config:
        alone, together = self.train_decoder.decoders, self.train_shared_decoder.decoders
        if twice := sorted(set(alone) & set(together)):
            raise ValueError(
                f"train_decoder and train_shared_decoder both name a decoder {twice[0]!r}: their "
                "files would be the same"
            )
        return self

    @model_validator(mode="after")
    def _tokenizers_are_known(self) -> Config:
        asked = {
            "decode_conditions.tokens": self.decode_conditions.tokens,
            "train_decoder.tokens": self.train_decoder.tokens,
        }
        if self.pretrain_tokens.enabled:
            asked |= {
                f"pretrain_tokens.models.{name}.tokenizer": one.tokenizer
                for name, one in self.pretrain_tokens.models.items()
            }
        known = self.train_tokenizer.tokenizers if self.train_tokenizer.enabled else {}
        for where, name in asked.items():
            if name and name not in known:
                raise ValueError(
                    f"{where} names the tokenizer {name!r}, but train_tokenizer trains "
                    f"{', '.join(known) or 'none (it is not enabled)'}"
                )
        return self

    def section(self, stage: str) -> dict[str, Any]:
        """Return one stage's section as plain values, with the root seed filled in."""
        values: dict[str, Any] = getattr(self, stage).model_dump(mode="json")
        if values.get("random_state", 0) is None:
            values["random_state"] = self.random_state
        return values
