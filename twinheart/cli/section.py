"""Tables and keys of the case file: what a key is made of, and the table of the scar."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def key(default: Any = ..., *, text: str, unit: str = "", source: str = "", **limits: Any) -> Any:
    """Declare a key: its default, what it means, its unit and where the default comes from."""
    extra: dict[str, Any] = {"unit": unit, "source": source}
    if isinstance(default, list | dict):
        return Field(
            default_factory=default.copy, description=text, json_schema_extra=extra, **limits
        )
    return Field(default, description=text, json_schema_extra=extra, **limits)


class Section(BaseModel):
    """A table of the case file: strict types, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class ScarSection(Section):
    """What scar does, where the mesh has a cell field 'scar': 0 healthy, 1 border zone, 2 core."""

    present: bool = key(True, text="Whether the field is heeded; the core then does not conduct.")
    condition: str = key(
        "border-zone",
        text="Disease of the cells of the border zone; 'none' for healthy ones.",
        source="Arevalo et al. 2016, doi:10.1038/ncomms11437, from memory",
    )
    across: float = key(
        0.1,
        text="Factor on the conductivity across the fibres in the border zone; velocities follow, "
        "as they do the cells there.",
        source="Arevalo et al. 2016, doi:10.1038/ncomms11437, from memory",
        gt=0,
        le=1,
    )
