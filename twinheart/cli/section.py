"""Tables and keys of TOML files: how one is read, what a key is made of, the table of the scar."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from twinheart.cli.small_file import read_small
from twinheart.errors import InputError


def read_toml(path: Path, wanted: str, kind: str) -> dict[str, Any]:
    """Read a TOML file of bounded size; `wanted` and `kind` name it where that fails."""
    content = read_small(path, wanted, kind)
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file: {error}.") from None


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


class PurkinjeSection(Section):
    """The Purkinje tree, coupled to the muscle both ways."""

    present: bool | None = key(
        None, text="Whether the heart has one; absent: where a stimulus is at 'purkinje'."
    )
    files: list[str] | None = key(
        None,
        text="Trees of line cells (VTU, VTK), each entered at its first point, at the minimum of "
        "its point field 'activation' [ms] where it has one, else at 0; without files one is grown "
        "on the endocardia, where surfaces are tagged.",
    )
    seed: int = key(0, text="Seed of the grown tree: same heart and seed, same tree.", ge=0)
    twig_length: float = key(
        10.0,
        text="Mean length of a twig, about the distance of junctions.",
        unit="mm",
        ge=2,
        le=100,
    )
    cell: str | None = key(
        None, text="Cell model of the tree, such as 'stewart2009'; that of the muscle if absent."
    )
    cv: float = key(
        2.2,
        text="Conduction velocity of the tree.",
        unit="m/s",
        source="Maguy et al. 2009, doi:10.1161/CIRCRESAHA.108.191809",
        gt=0,
    )
    resistance: float = key(
        0.6,
        text="Of a junction with the muscle; sets its delay, about 3.5 ms.",
        unit="kOhm",
        source="delay measured by doi:10.3389/fcvm.2023.1158480",
        gt=0,
    )
