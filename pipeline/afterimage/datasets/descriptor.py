"""What is said of a published dataset in ``data/datasets/<name>.yaml``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, HttpUrl

from afterimage.settings import Settings


class PublishedFile(Settings):
    """One kind of file of a dataset."""

    path: str = Field(description="below the source folder; XX is a subject, NN a number")
    what: str = Field(description="what it holds: arrays, axes, types, units")
    required: bool = Field(description="whether the reader can do without it")


class Access(Settings):
    """How to get one part of a dataset."""

    url: HttpUrl = Field(description="where it is")
    how: str = Field(description="by which client, and what one must agree to before")


class Paper(Settings):
    """The paper to cite."""

    citation: str = Field(description="authors, year, title, journal")
    doi: str = Field(pattern=r"^10\.\d{4,}/\S+$", description="DOI, or of the preprint")


class Descriptor(Settings):
    """A published dataset and what afterimage makes of it."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="name of the reader")
    title: str = Field(description="name of the dataset")
    doi: str | None = Field(pattern=r"^10\.\d{4,}/\S+$", description="DOI of the dataset")
    paper: Paper | None = Field(description="the paper to cite")
    licence: str = Field(description="of the recordings")
    modality: Literal["fmri", "eeg", "meg"] = Field(description="kind of recording")
    way_in: tuple[Literal["prepared", "bids"], ...] = Field(
        min_length=1, description="what the reader writes: prepared responses, or a BIDS folder"
    )
    subjects: tuple[str, ...] = Field(min_length=1, description="labels without sub-")
    tasks: tuple[str, ...] = Field(min_length=1, description="what the subjects did")
    acquisition: str = Field(description="field strength, repetition time, voxel size, design")
    recordings: Access = Field(description="where the recordings are")
    stimuli: Access = Field(description="where the pictures are")
    split: str = Field(description="which trials are training and which are test")
    files: tuple[PublishedFile, ...] = Field(min_length=1, description="what the reader reads")
    notes: tuple[str, ...] = Field(description="traps, and what the reader does about them")
    unverified: tuple[str, ...] = Field(
        description="facts the reader rests on that were not seen in the published files"
    )
