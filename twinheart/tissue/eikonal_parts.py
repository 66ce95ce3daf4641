"""From hearts, surfaces and Purkinje trees to the arrays of an eikonal problem."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.errors import ModelError
from twinheart.mesh import TriMesh
from twinheart.tissue.cable import continuum_velocity, lattice_spacing
from twinheart.tissue.conductivity import (
    Conduction,
    Conductivities,
    NonConducting,
    Velocities,
    by_region,
    check_positive,
)
from twinheart.tissue.eikonal_elements import (
    TET_PAIRS,
    TRIANGLE_PAIRS,
    Elements,
    squared_projections,
)
from twinheart.tissue.purkinje import ConductionSystem
from twinheart.types import Array

# Velocity [m/s] of a wave at a diffusivity of 1 mm2/ms, to whose root it is proportional: as in the
# published code of a Purkinje calibration study, github.com/fsahli/purkinje-learning.
_RATE = 2.0
_REFERENCE = 0.1  # mm2/ms, where the rate of a cell model is measured
_REACH = 1.0  # mm: a junction excites the muscle within this distance, exactly as a site does
_FARTHEST = 5.0  # mm beyond an edge of the mesh: the tree is another heart's


class Parts(NamedTuple):
    """A mesh that conducts, before it is joined with a tree.

    Attributes
    ----------
    points : (node, 3) array
        Nodes [mm].
    cells : (cell, corner) int array
        Tetrahedra or triangles that conduct.
    axes : tuple of (cell, 3) arrays or None
        Fibre and sheet; None stands for what is left.
    columns : tuple of int
        Column of the velocities that holds along fibre, sheet and normal.
    rows : (cell,) int array
        Row of the velocities of every cell.
    velocity : (row, 3) array
        Velocities [m/s].
    tags : tuple of int
        Region tags of the rows.
    spacing : float
        Mean edge length [mm].
    """

    points: np.ndarray
    cells: np.ndarray
    axes: tuple[np.ndarray | None, ...]
    columns: tuple[int, int, int]
    rows: np.ndarray
    velocity: Any
    tags: tuple[int, ...]
    spacing: float


class Strands(NamedTuple):
    """A tree beside the mesh.

    Attributes
    ----------
    points : (tree_node, 3) array
        Nodes [mm].
    edges : (edge, 2) int array
        Its edges, then the links between its ends and the muscle; mesh nodes first.
    squares : (edge, 3) array
        Squared lengths [mm2] along the columns of the velocities.
    rows : (edge,) int array
        Rows of the velocities.
    junction : (edge,) bool array
        Links.
    roots : (root,) int array
        Nodes where the tree is excited first.
    cv : () array
        Velocity of the tree [m/s].
    """

    points: np.ndarray
    edges: np.ndarray
    squares: np.ndarray
    rows: np.ndarray
    junction: np.ndarray
    roots: np.ndarray
    cv: Array


class Axes:
    """Directions in every cell, on the host: what sites and junctions need; see `Elements`.

    Parameters
    ----------
    parts : Parts
        Mesh.
    """

    def __init__(self, parts: Parts):
        self.axes, self.columns, self.rows = parts.axes, parts.columns, parts.rows
        self.facet = 0.5 * parts.spacing  # mm: farther from the mesh, a site is outside

    def frames(self, cells) -> Float[np.ndarray, "site 3 3"]:
        """Unit vectors along fibre, sheet and normal, one a row, of some cells."""
        first, second = (*self.axes, None)[:2]
        frames = np.broadcast_to(np.eye(3), (len(cells), 3, 3)).copy()
        for k, own in enumerate(np.atleast_1d(cells)):
            f = np.array([1.0, 0, 0]) if first is None else first[own]
            helper = np.eye(3)[np.abs(f).argmin()] if second is None else second[own]
            s = helper - (helper @ f) * f
            s = s / np.linalg.norm(s)
            frames[k] = f, s, np.cross(f, s)
        return frames

    def nearest_sites(
        self, elements: Elements, positions, onsets, radius, slow, *, silent: bool = False
    ):
        """Site that reaches every node of its ball first, frame and row of each site.

        If `silent`, sites that lie in no element reach none.
        """
        positions, onsets, slow = (np.asarray(x, dtype=float) for x in (positions, onsets, slow))
        cell, gap = elements.locate(positions)
        frames, row = self.frames(cell), self.rows[cell].astype(np.int32)
        site, best = np.full(elements.n_nodes, -1, np.int32), np.full(elements.n_nodes, np.inf)
        for k, position in enumerate(positions):
            if silent and gap[k] > self.facet:
                continue
            nodes = elements.ball(position, int(cell[k]), float(radius))
            along = (elements.points[nodes] - position) @ frames[k].T
            u = onsets[k] + np.sqrt(along**2 @ slow[row[k]][list(self.columns)])
            wins = u < best[nodes]
            best[nodes[wins]], site[nodes[wins]] = u[wins], k
        return site, frames.astype(slow.dtype), row


def heart_parts(heart: Heart, conduction, cell: AbstractCellModel | None) -> Parts:
    """The muscle of a heart that conducts."""
    axes, columns = _axes(heart.f0, heart.s0)
    return _parts(
        heart.mesh.points, heart.mesh.tets, axes, columns, heart.regions, conduction, cell,
        lattice_spacing(heart.mesh), lambda given: by_region(heart, given, "conductivity"),
    )  # fmt: skip


def surface_parts(mesh: TriMesh, f0, regions, conduction, cell: AbstractCellModel | None) -> Parts:
    """The part of a surface that conducts."""
    count = mesh.n_triangles
    regions = np.zeros(count, dtype=np.int32) if regions is None else np.asarray(regions)
    for name, field, shape in (("f0", f0, (count, 3)), ("regions", regions, (count,))):
        if field is not None and np.shape(field) != shape:
            raise ModelError(f"{name} has shape {np.shape(field)}, expected {shape}.")
    if f0 is not None:
        f0 = np.asarray(f0, dtype=float)
        length = np.linalg.norm(f0, axis=1)
        if not (np.abs(length - 1) < 1e-3).all():
            raise ModelError("f0 is not a unit vector in every triangle: normalise it.")
        f0 = f0 / length[:, None]
    sides = np.diff(mesh.points[mesh.triangles[:, [0, 1, 2, 0]]], axis=1)
    spacing = float(np.linalg.norm(sides, axis=2).mean())
    axes, columns = _axes(f0, None)

    def by_tag(given):
        tags = [int(tag) for tag in np.unique(regions)]
        if not isinstance(given, dict):
            return {tag: given for tag in tags}
        missing = [tag for tag in tags if tag not in given]
        if missing:
            raise ModelError(
                f"region tags {missing} of the surface have no conductivity; given are "
                f"{sorted(given)}: add an entry for each missing tag."
            )
        return {tag: given[tag] for tag in tags}

    return _parts(
        mesh.points, mesh.triangles, axes, columns, regions, conduction, cell, spacing, by_tag
    )


def _axes(f0, s0) -> tuple[tuple, tuple[int, int, int]]:
    if f0 is None:
        return (None,), (0, 0, 0)
    if s0 is None:
        return (f0, None), (0, 1, 1)
    return (f0, s0, None), (0, 1, 2)


def _parts(points, cells, axes, columns, regions, conduction, cell, spacing, by_tag) -> Parts:
    if not isinstance(conduction, dict | Velocities | Conductivities | NonConducting):
        velocity = jnp.asarray(conduction, dtype=float)
        if velocity.shape != (len(cells), 3):
            raise ModelError(
                f"velocities have shape {velocity.shape}, expected ({len(cells)}, 3): along fibre, "
                "sheet and normal in every element."
            )
        check_positive("the velocity of an element [m/s]", velocity)
        return Parts(points, cells, axes, columns, np.arange(len(cells)), velocity, (), spacing)
    tissues = by_tag(conduction)
    living = {tag: t for tag, t in tissues.items() if not isinstance(t, NonConducting)}
    if not living:
        raise ModelError("no region conducts: give at least one of them velocities.")
    velocity = jnp.stack([_velocities(tissue, cell) for tissue in living.values()])
    check_positive("a conduction velocity [m/s]", velocity)
    tags = np.array(list(living))
    kept = np.isin(regions, tags)
    rows = np.searchsorted(tags, regions[kept])
    axes = tuple(None if a is None else a[kept] for a in axes)
    return Parts(points, cells[kept], axes, columns, rows, velocity, tuple(living), spacing)


def _velocities(tissue: Conduction, cell: AbstractCellModel | None) -> Array:
    if isinstance(tissue, Velocities):
        return tissue.cv
    assert isinstance(tissue, Conductivities)
    rate = _RATE if cell is None else continuum_velocity(cell, _REFERENCE) / _REFERENCE**0.5
    return rate * jnp.sqrt(tissue.diffusivity)


def strands_between(parts: Parts, heart: Heart, system: ConductionSystem) -> Strands:
    """The tree, and the links between its ends and the muscle around them.

    Raises
    ------
    ModelError
        If the tree does not lie in the heart.
    """
    tree, n_mesh = system.tree, heart.mesh.n_nodes
    elements, axes = Elements(parts.points, parts.cells, [], []), Axes(parts)
    ends = tree.junctions
    cell, gap = elements.locate(tree.points[ends])
    far = gap > _FARTHEST + parts.spacing
    if far.any():
        place = ", ".join(f"{x:.1f}" for x in tree.points[ends[far][0]])
        raise ModelError(
            f"{far.sum()} of {len(ends)} ends of the Purkinje tree lie up to {gap.max():.1f} mm "
            f"away from the muscle (first: at {place} mm): it belongs to another heart, or its "
            "unit is not mm."
        )
    links, along = [], []
    for end, own, frame in zip(ends, cell, axes.frames(cell), strict=True):
        nodes = elements.ball(tree.points[end], int(own), _REACH)
        links.append(np.stack([np.full(len(nodes), end + n_mesh), nodes], axis=1))
        along.append(((parts.points[nodes] - tree.points[end]) @ frame.T) ** 2)
    count = [len(link) for link in links]
    squares = np.zeros((sum(count), 3))
    for k, column in enumerate(parts.columns):
        squares[:, column] += np.concatenate(along)[:, k]
    lengths = tree.lengths
    own = np.zeros((len(lengths), 3))
    own[:, 0] = lengths**2
    tree_row = np.full(len(lengths), len(parts.velocity))
    return Strands(
        points=tree.points,
        edges=np.concatenate([tree.edges + n_mesh, *links]),
        squares=np.concatenate([own, squares]),
        rows=np.concatenate([tree_row, np.repeat(parts.rows[cell], count)]),
        junction=np.arange(len(lengths) + sum(count)) >= len(lengths),
        roots=tree.roots + n_mesh,
        cv=system.cv,
    )


def assembled(parts: Parts, strands: Strands | None) -> dict[str, Any]:
    """Fields of the problem."""
    points, velocity = parts.points, parts.velocity
    edges, edge_squares = np.zeros((0, 2), np.int32), np.zeros((0, 3))
    edge_rows, junction, roots = np.zeros(0, np.int32), np.zeros(0), np.zeros(0, np.int32)
    if strands is not None:
        points = np.concatenate([points, strands.points])
        velocity = jnp.concatenate([velocity, jnp.full((1, 3), strands.cv)])
        edges, edge_squares, edge_rows = strands.edges, strands.squares, strands.rows
        junction, roots = strands.junction, strands.roots
    solid = parts.cells.shape[1] == 4
    none = np.zeros((0, 3 if solid else 4), np.int32)
    pairs = TET_PAIRS if solid else TRIANGLE_PAIRS
    lengths = squared_projections(points, parts.cells, pairs, parts.axes)
    squares = tuple(jnp.asarray(x, float) for x in lengths)
    empty = tuple(jnp.zeros((0, 3 if solid else 6)) for _ in lengths)
    of_edges = tuple(jnp.asarray(x, float) for x in edge_squares.T)
    tets, triangles = (parts.cells, none) if solid else (none, parts.cells)
    elements = Elements(points, tets, triangles, edges)
    rows, no_rows = jnp.asarray(parts.rows, jnp.int32), jnp.zeros(0, jnp.int32)
    return {
        "velocity": velocity,
        "points": jnp.asarray(points, float),
        "cells": tuple(map(jnp.asarray, (elements.tets, elements.triangles, elements.edges))),
        "squares": (squares, empty, of_edges) if solid else (empty, squares, of_edges),
        "rows": (
            *((rows, no_rows) if solid else (no_rows, rows)),
            jnp.asarray(edge_rows, jnp.int32),
        ),
        "junction": jnp.asarray(junction, float),
        "elements": elements,
        "axes": Axes(parts),
        "tags": parts.tags,
        "n_mesh": len(parts.points),
        "roots": roots.astype(np.int32),
    }
