"""Fibres, sheets and region tags, found under the names that the field uses for them."""

import re
from collections.abc import Mapping

import numpy as np

from twinheart.mesh.core import TetMesh, TriMesh

# compared without case and punctuation, the likeliest first
FIBRE_NAMES = (
    "fibre", "fibres", "fiber", "fibers", "f0", "f", "ef", "fibredirection", "fiberdirection",
    "fibredirections", "fiberdirections", "fibredir", "fiberdir", "fibreorientation",
    "fiberorientation", "fibrevector", "fibervector", "fibrevectors", "fibervectors", "lon",
    "longitudinal",
)  # fmt: skip
SHEET_NAMES = (
    "sheet", "sheets", "s0", "s", "es", "sheetdirection", "sheetdirections", "sheetdir",
    "sheetorientation", "sheetvector", "sheetvectors",
)  # fmt: skip
REGION_NAMES = (
    "region", "regions", "regionid", "regionids", "regiontag", "regiontags", "elemtag",
    "elemtags", "tag", "tags", "celltag", "celltags", "material", "materials", "materialid",
    "materialids", "gmshphysical", "physical", "label", "labels",
)  # fmt: skip


def find_vectors(mesh: TetMesh | TriMesh, names: tuple[str, ...]) -> tuple[str, str] | None:
    """Where a direction field is: cells are searched before points.

    Parameters
    ----------
    mesh : TetMesh or TriMesh
        Mesh with its fields.
    names : tuple of str
        `FIBRE_NAMES` or `SHEET_NAMES`.

    Returns
    -------
    (str, str) or None
        ``"cell"`` or ``"point"``, and the name of the field as the file spells it.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.fields import FIBRE_NAMES, find_vectors
    >>> fields = {"Fiber_Direction": np.ones((4, 3))}
    >>> mesh = TetMesh(np.eye(4, 3, -1), np.array([[0, 1, 2, 3]]), fields)
    >>> find_vectors(mesh, FIBRE_NAMES)
    ('point', 'Fiber_Direction')
    """
    for where, fields in (("cell", mesh.cell_fields), ("point", mesh.point_fields)):
        vectors = {k: v for k, v in fields.items() if v.ndim == 2 and v.shape[1] == 3}
        name = _first(vectors, names)
        if name is not None:
            return where, name
    return None


def find_regions(mesh: TetMesh | TriMesh) -> str | None:
    """Name of the cell field that holds the region tags, None where there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.fields import find_regions
    >>> mesh = TetMesh(np.eye(4, 3, -1), np.array([[0, 1, 2, 3]]), {}, {"elemTag": np.ones(1)})
    >>> find_regions(mesh)
    'elemTag'
    """
    return _first({k: v for k, v in mesh.cell_fields.items() if is_tags(v)}, REGION_NAMES)


def is_tags(values: np.ndarray) -> bool:
    """Whether a field is one whole number a row that fits into 32 bits."""
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.number) or values.dtype.kind == "c":
        return False
    limit = np.iinfo(np.int32).max
    in_range = np.all(np.abs(values.astype(float)) <= limit)
    return bool(in_range and (values.dtype.kind in "iu" or np.all(values == np.rint(values))))


def tags_as_integers(fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fields with those that are named like region tags turned into integers.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.fields import tags_as_integers
    >>> tags_as_integers({"tag": np.array([1.0, 2.0])})["tag"]
    array([1, 2], dtype=int32)
    """
    return {
        name: values.astype(np.int32)
        if canonical(name) in REGION_NAMES and is_tags(values)
        else values
        for name, values in fields.items()
    }


def canonical(name: str) -> str:
    """Name without case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _first(fields: Mapping[str, np.ndarray], names: tuple[str, ...]) -> str | None:
    by_canonical = {canonical(name): name for name in reversed(list(fields))}
    return next((by_canonical[name] for name in names if name in by_canonical), None)
