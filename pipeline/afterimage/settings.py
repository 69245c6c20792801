"""The base of every settings class: frozen, and strict about unknown keys."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings of one method or stage: immutable, unknown keys refused, units in key names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StageConfig(Settings):
    """What one stage lets the user set; it travels to the stage as one JSON object."""
