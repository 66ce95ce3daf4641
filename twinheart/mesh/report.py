"""What a mesh is made of and what is wrong with it, in numbers and in sentences."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from twinheart.mesh.core import TetMesh, TriMesh
from twinheart.mesh.defects import (
    cells_of,
    check_finite,
    counted,
    flat_cells,
    repeated_cells,
    representatives,
    used_nodes,
)
from twinheart.mesh.fields import FIBRE_NAMES, SHEET_NAMES, find_regions, find_vectors
from twinheart.mesh.quality import (
    components,
    dihedral_angles,
    edge_keys,
    enclosed_volume,
    mean_edge,
    triangle_areas,
    volumes,
)

# below this an explicit scheme pays dearly for the worst tetrahedra
_POOR_ANGLE = 5.0


@dataclass(frozen=True)
class MeshReport:
    """Counts, sizes and defects of a mesh as it was found, and what was done about them.

    Parameters
    ----------
    n_nodes, n_tets, n_triangles : int
        Numbers of nodes, and of tetrahedra or, for a surface, triangles.
    n_components : int
        Connected pieces of the tissue; orphan nodes are none.
    n_flipped, n_degenerate, n_duplicate_cells : int
        Cells of negative volume, without volume, and with the same nodes as an earlier one.
    n_orphan_nodes, n_duplicate_nodes : int
        Nodes in no cell; nodes at the place of an earlier one.
    length_unit, length_unit_source : str
        Unit of the file, and how it is known.
    bbox_mm : tuple of 3 floats
        Extent in x, y and z [mm], orphan nodes left out.
    volume_ml : float or None
        Volume of the tetrahedra, whatever their orientation [ml].
    mean_edge_mm, min_dihedral_deg, max_dihedral_deg : float or None
        Mean length of the edges [mm], extreme dihedral angles [degrees].
    min_dihedral_percentiles_deg : dict
        1st, 5th and 50th percentile of the smallest angle of each tetrahedron [degrees].
    area_mm2, enclosed_volume_ml, closed : float, float, bool or None
        Of a surface: its area; whether it has no open edge; then the volume inside.
    fields : dict
        ``point`` and ``cell``: columns of each field, by name.
    regions : dict
        Number of cells of each region tag.
    fibres, sheets : str or None
        Where fibre and sheet directions were found.
    component_shares : tuple of floats
        Share of all cells in each component, the largest first, ten at most.
    file, format : str
        Path and format.
    notes, repairs : tuple of str
        Sentences: what was assumed or should be known; what was changed.
    """

    n_nodes: int = 0
    n_tets: int = 0
    n_components: int = 0
    n_flipped: int = 0
    n_orphan_nodes: int = 0
    length_unit: str = "mm"
    bbox_mm: tuple[float, ...] = (0.0, 0.0, 0.0)
    volume_ml: float | None = None
    mean_edge_mm: float | None = None
    min_dihedral_deg: float | None = None
    fields: dict[str, dict[str, int]] = field(default_factory=dict)
    regions: dict[int, int] = field(default_factory=dict)
    n_triangles: int = 0
    n_degenerate: int = 0
    n_duplicate_nodes: int = 0
    n_duplicate_cells: int = 0
    max_dihedral_deg: float | None = None
    min_dihedral_percentiles_deg: dict[int, float] = field(default_factory=dict)
    area_mm2: float | None = None
    enclosed_volume_ml: float | None = None
    closed: bool | None = None
    fibres: str | None = None
    sheets: str | None = None
    component_shares: tuple[float, ...] = ()
    length_unit_source: str = ""
    file: str = ""
    format: str = ""
    notes: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()

    @property
    def n_defects(self) -> int:
        """Cells and nodes that call for repair, orphan nodes left aside."""
        cells = self.n_flipped + self.n_degenerate + self.n_duplicate_cells
        return cells + self.n_duplicate_nodes

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, fit for JSON; what does not apply to this kind of mesh is left out.

        Examples
        --------
        >>> from twinheart.mesh.report import MeshReport
        >>> MeshReport(n_nodes=4).as_dict()["n_nodes"]
        4
        """
        kind = "surface" if self.n_triangles else "tetrahedra"
        other = _TETS_ONLY if kind == "surface" else _SURFACE_ONLY
        values = {k: v for k, v in asdict(self).items() if k not in other}
        return values | {"kind": kind}

    def sentences(self) -> tuple[str, ...]:
        """All that a user should read: the unit, notes, defects and repairs."""
        return (self._unit(), *self.notes, *self._defects(), *self.repairs)

    def _unit(self) -> str:
        return f"length unit {self.length_unit} ({self.length_unit_source or 'as given'})"

    def _defects(self) -> tuple[str, ...]:
        cell = ("tetrahedron", "tetrahedra") if self.n_tets else ("triangle", "triangles")
        all_cells = counted(self.n_tets or self.n_triangles, *cell)
        out = []
        if self.n_flipped:
            out.append(f"{self.n_flipped} of {all_cells} flipped (negative volume)")
        if self.n_degenerate:
            out.append(f"{self.n_degenerate} of {all_cells} flat (no volume)")
        if self.n_duplicate_cells:
            out.append(f"{counted(self.n_duplicate_cells, *cell)} with the nodes of another")
        if self.n_orphan_nodes:
            out.append(f"{counted(self.n_orphan_nodes, 'orphan node')} in no cell")
        if self.n_duplicate_nodes:
            out.append(f"{counted(self.n_duplicate_nodes, 'node')} at the place of another")
        if self.n_components > 1:
            shares = ", ".join(f"{100 * s:.3g} %" for s in self.component_shares)
            out.append(f"{self.n_components} separate components (largest: {shares} of all cells)")
        if self.closed is False:
            out.append("the surface has open edges")
        if self.min_dihedral_deg is not None and self.min_dihedral_deg < _POOR_ANGLE:
            out.append(
                f"the smallest dihedral angle is {self.min_dihedral_deg:.2g} degrees: such slivers "
                "force small time steps on explicit schemes"
            )
        return tuple(out)

    def with_sentences(self, notes: tuple[str, ...], repairs: tuple[str, ...]) -> "MeshReport":
        """Copy with further notes and repairs."""
        return replace(self, notes=self.notes + notes, repairs=self.repairs + repairs)


_TETS_ONLY = {"n_flipped", "volume_ml", "min_dihedral_deg", "max_dihedral_deg",
              "min_dihedral_percentiles_deg"}  # fmt: skip
_SURFACE_ONLY = {"n_triangles", "area_mm2", "enclosed_volume_ml", "closed"}


def examine(mesh: TetMesh | TriMesh, **known: Any) -> MeshReport:
    """Report on a mesh as it is; nothing is changed.

    Parameters
    ----------
    mesh : TetMesh or TriMesh
        Mesh [mm]; flipped tetrahedra and orphan nodes are allowed.
    **known
        What only the reader knows: ``file, format, length_unit, length_unit_source, notes``.

    Returns
    -------
    MeshReport
        Counts, sizes and defects.

    Raises
    ------
    MeshError
        If coordinates are not finite.

    Examples
    --------
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.report import examine
    >>> report = examine(slab((2.0, 1.0, 1.0), 0.5))
    >>> report.n_components, round(report.volume_ml, 6)
    (1, 0.002)
    """
    check_finite(mesh.points, known.get("file", "the mesh"))
    cells = cells_of(mesh)
    used = used_nodes(mesh)
    labels = components(cells, mesh.n_nodes)[cells[:, 0]]
    shares = np.bincount(labels) / max(len(cells), 1)
    first = representatives(mesh)
    tags = find_regions(mesh)
    regions = np.unique(mesh.cell_fields[tags], return_counts=True) if tags else ((), ())
    common = {
        "n_nodes": mesh.n_nodes,
        "n_components": len(shares),
        "n_orphan_nodes": int(np.count_nonzero(~used)),
        "bbox_mm": tuple(np.ptp(mesh.points[used], axis=0).tolist()) if used.any() else (0.0,) * 3,
        "mean_edge_mm": mean_edge(mesh) if len(cells) else None,
        "n_degenerate": int(np.count_nonzero(flat_cells(mesh))),
        "n_duplicate_nodes": int(np.count_nonzero(first != np.arange(mesh.n_nodes))),
        "n_duplicate_cells": int(np.count_nonzero(repeated_cells(cells))),
        "component_shares": tuple(shares[:10].tolist()),
        "fields": {
            "point": {k: _columns(v) for k, v in mesh.point_fields.items()},
            "cell": {k: _columns(v) for k, v in mesh.cell_fields.items()},
        },
        "regions": {int(t): int(n) for t, n in zip(*regions, strict=True)},
        "fibres": _place(mesh, FIBRE_NAMES),
        "sheets": _place(mesh, SHEET_NAMES),
    }
    own = _tets(mesh) if isinstance(mesh, TetMesh) else _surface(mesh)
    return MeshReport(**common, **own, **known)


def _tets(mesh: TetMesh) -> dict[str, Any]:
    volume = volumes(mesh.points, mesh.tets)
    angles = dihedral_angles(mesh.points, mesh.tets)
    wanted = (1, 5, 50)
    percentiles = (
        np.percentile(angles.min(axis=1), wanted) if angles.size else [np.nan] * len(wanted)
    )
    return {
        "n_tets": mesh.n_tets,
        "n_flipped": int(np.count_nonzero(volume < 0)),
        "volume_ml": float(np.abs(volume).sum()) / 1000,
        "min_dihedral_deg": float(angles.min()) if angles.size else None,
        "max_dihedral_deg": float(angles.max()) if angles.size else None,
        "min_dihedral_percentiles_deg": {
            p: float(v) for p, v in zip(wanted, percentiles, strict=True)
        },
    }


def _surface(mesh: TriMesh) -> dict[str, Any]:
    keys = edge_keys(mesh.triangles).ravel()
    closed = bool(len(keys) and np.all(np.unique(keys, return_counts=True)[1] == 2))
    inside = abs(enclosed_volume(mesh.points, mesh.triangles)) / 1000
    return {
        "n_triangles": mesh.n_triangles,
        "area_mm2": float(triangle_areas(mesh.points, mesh.triangles).sum()),
        "closed": closed,
        "enclosed_volume_ml": inside if closed else None,
    }


def _columns(values: np.ndarray) -> int:
    return int(np.prod(values.shape[1:], dtype=int))


def _place(mesh: TetMesh | TriMesh, names: tuple[str, ...]) -> str | None:
    found = find_vectors(mesh, names)
    return None if found is None else f"{found[0]} field '{found[1]}'"
