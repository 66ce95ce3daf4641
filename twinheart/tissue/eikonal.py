r"""Activation times by the anisotropic eikonal equation, exact derivatives included.

.. math:: \sqrt{\nabla T \cdot M \nabla T} = 1, \qquad
          M = c_l^2 f f^T + c_t^2 s s^T + c_n^2 n n^T, \qquad T(x_k) = t_k,

on tetrahedra (ventricles), triangles (atria as surfaces) and edges (the Purkinje tree), all in one
solve. T is linear in every element; each node takes the least arrival over its elements, and the
fixed point of these updates is reached in either of two ways, see `Eikonal`.

A source is a ball in which the arrival is exact in the local metric: from a single node the error
would shrink with the edge length to the power 0.6 only.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.errors import ModelError
from twinheart.mesh import TriMesh
from twinheart.tissue.conductivity import Conduction, Velocities, check_positive
from twinheart.tissue.eikonal_elements import Elements
from twinheart.tissue.eikonal_fixed_point import fixed_point
from twinheart.tissue.eikonal_parts import (
    Axes,
    Parts,
    Strands,
    assembled,
    heart_parts,
    strands_between,
    surface_parts,
)
from twinheart.tissue.host import on_host
from twinheart.tissue.purkinje import ConductionSystem
from twinheart.types import Array

SOLVERS = ("auto", "ordered", "sweeps")
# From stimulus at a junction to the muscle and back [ms]: what the monodomain tree does by default,
# see `ConductionSystem`; optical maps of rabbit junctions give 3.4 +- 0.8 ms forth
# (doi:10.3389/fcvm.2023.1158480).
JUNCTION_DELAYS = (3.5, 0.6)


def _as_float(value) -> Array:
    return jnp.asarray(value, dtype=float)


class Sites(eqx.Module):
    """Where and when excitation starts; positions need not be nodes.

    Parameters
    ----------
    positions : (site, 3) array
        Places in the muscle [mm].
    onsets : (site,) array
        Times [ms]; one number for all. Default 0.
    radius : float
        Within this distance [mm] the arrival is exact, as in homogeneous tissue around the site.

    Raises
    ------
    ModelError
        If a number is not finite, the radius not positive, or there are not as many onsets as
        positions.

    Examples
    --------
    >>> from twinheart.tissue import Sites
    >>> Sites([[0.0, 0, 0], [9, 0, 0]], [0.0, 12.0]).onsets.tolist()
    [0.0, 12.0]
    """

    positions: Float[Array, "site 3"]
    onsets: Float[Array, "site"]
    radius: Float[Array, ""]

    def __init__(self, positions: Any, onsets: Any = 0.0, radius: Any = 2.0):
        self.positions = jnp.atleast_2d(_as_float(positions))
        onsets = _as_float(onsets)
        count = self.positions.shape[:1]
        self.onsets = jnp.broadcast_to(onsets, count) if onsets.ndim == 0 else onsets
        self.radius = _as_float(radius)
        if self.positions.shape[1:] != (3,) or self.onsets.shape != count:
            raise ModelError(
                f"sites have positions of shape {self.positions.shape} and onsets of shape "
                f"{self.onsets.shape}, expected (site, 3) and (site,)."
            )

    def __check_init__(self):
        for name in ("positions", "onsets", "radius"):
            value = getattr(self, name)
            if isinstance(value, jax.Array) and not isinstance(value, Tracer):
                number = np.asarray(value)
                if not np.isfinite(number).all() or (name == "radius" and not (number > 0).all()):
                    raise ModelError(
                        f"{name} of the sites are {number.tolist()}, expected finite numbers and "
                        "a positive radius [mm]."
                    )


class Eikonal(eqx.Module):
    """An eikonal problem: geometry and velocities.

    `velocity` and `delays` are what derivatives are taken by (``eqx.tree_at``); the other arrays
    are geometry.

    Attributes
    ----------
    velocity : (row, 3) array
        Along fibre, sheet and normal [m/s]; one row for each of `tags`, then one for the Purkinje
        tree if there is one. With velocities for every tetrahedron, one row for each.
    delays : (2,) array
        At a junction, from the tree to the muscle and back [ms].
    points : (node, 3) array
        Nodes of the mesh, then of the tree [mm].
    cells : tuple of int arrays
        Tetrahedra (tet, 4), triangles (triangle, 3), edges (edge, 2) that conduct.
    squares : tuple of tuples of arrays
        For each kind of element its edges' squared lengths [mm2] along fibre, sheet and normal.
    rows : tuple of int arrays
        Row of `velocity` of every element.
    junction : (edge,) array
        1 for edges between tree and muscle.
    tags : tuple of int
        Region tags of the rows; empty where every element has its own.
    n_mesh : int
        Nodes of the mesh; those of the tree follow.
    roots : (root,) int array
        Nodes where the tree is excited first.
    solver : str
        ``"ordered"``: compiled, for CPUs; ``"sweeps"``: all elements at once, for GPUs;
        ``"auto"`` chooses by the backend. Both reach the same fixed point.
    tolerance : float
        Change [ms] below which a node is not touched again.
    """

    velocity: Float[Array, "row 3"]
    delays: Float[Array, "2"]
    points: Float[Array, "node 3"]
    cells: tuple[Int[Array, "tet 4"], Int[Array, "triangle 3"], Int[Array, "edge 2"]]
    squares: tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]]
    rows: tuple[Int[Array, "tet"], Int[Array, "triangle"], Int[Array, "edge"]]
    junction: Float[Array, "edge"]
    elements: Elements = eqx.field(static=True)
    axes: Axes = eqx.field(static=True)
    tags: tuple[int, ...] = eqx.field(static=True)
    n_mesh: int = eqx.field(static=True)
    roots: Int[np.ndarray, "root"]
    solver: str = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    @property
    def n_nodes(self) -> int:
        """Nodes of mesh and tree."""
        return self.elements.n_nodes


def build_eikonal(
    heart: Heart,
    conduction: Conduction | dict[int, Conduction] | Float[Array, "tet 3"] | None = None,
    *,
    purkinje: ConductionSystem | None = None,
    cell: AbstractCellModel | None = None,
    junction_delays: tuple[float, float] = JUNCTION_DELAYS,
    solver: str = "auto",
    tolerance: float = 1e-6,
) -> Eikonal:
    """Assemble the eikonal problem of a heart.

    Parameters
    ----------
    heart : Heart
        Mesh [mm], fibres, regions.
    conduction : Velocities, Conductivities, NonConducting, dict of int to these, or array
        Tissue, or one for each region tag; an array (tet, 3) gives every tetrahedron velocities
        along fibre, sheet and normal [m/s]. Default `Velocities()`. A fast endocardium is made by
        `twinheart.tissue.fast_endocardium`.
    purkinje : ConductionSystem, optional
        Tree, excited from its roots and from the muscle.

    Other Parameters
    ----------------
    cell : AbstractCellModel, optional
        Cell whose waves give the velocity of a tissue given by `Conductivities`, proportional to
        the root of the diffusivity; default 2 mm/ms at 1 mm2/ms, which is 0.617 m/s for the
        conductivities of Niederer et al. 2011.
    junction_delays : pair of float
        From tree to muscle and back [ms].
    solver, tolerance
        See `Eikonal`.

    Returns
    -------
    Eikonal
        For `arrival`.

    Raises
    ------
    ModelError
        If a velocity is not positive, a region has no tissue, nothing conducts, or the tree
        does not lie in the heart.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue import Sites, Velocities, arrival, build_eikonal
    >>> mesh = slab((20.0, 4.0, 4.0), 1.0)
    >>> heart = Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    >>> problem = build_eikonal(heart, Velocities(0.5, 0.25))
    >>> lat = arrival(problem, Sites([[0.0, 2.0, 2.0]]))
    >>> round(float(lat[20 + 21 * (2 + 5 * 2)]), 2)  # 20 mm away, along the fibres
    40.0
    """
    conduction = Velocities() if conduction is None else conduction
    parts = heart_parts(heart, conduction, cell)
    strands = None if purkinje is None else strands_between(parts, heart, purkinje)
    return _problem(parts, strands, junction_delays, solver, tolerance)


def build_surface_eikonal(
    mesh: TriMesh,
    f0: Float[np.ndarray, "triangle 3"] | None = None,
    conduction: Conduction | dict[int, Conduction] | Float[Array, "triangle 3"] | None = None,
    *,
    regions: Int[np.ndarray, "triangle"] | None = None,
    cell: AbstractCellModel | None = None,
    solver: str = "auto",
    tolerance: float = 1e-6,
) -> Eikonal:
    """Assemble the eikonal problem of a surface, such as the wall of an atrium.

    Parameters
    ----------
    mesh : TriMesh
        Surface [mm].
    f0 : (triangle, 3) array, optional
        Unit fibre direction of every triangle; isotropic without.
    conduction : Velocities, Conductivities, NonConducting, dict of int to these, or array
        See `build_eikonal`; velocities normal to sheets have no meaning here.
    regions : (triangle,) int array, optional
        Region tags; default 0.

    Other Parameters
    ----------------
    cell, solver, tolerance
        See `build_eikonal`.

    Returns
    -------
    Eikonal
        For `arrival`.

    Raises
    ------
    ModelError
        As `build_eikonal`.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.tissue import Sites, Velocities, arrival, build_surface_eikonal
    >>> points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    >>> mesh = TriMesh(points, np.array([[0, 1, 2], [1, 3, 2]]))
    >>> problem = build_surface_eikonal(mesh, conduction=Velocities(0.5))
    >>> arrival(problem, Sites([[0.0, 0, 0]], radius=0.1))[1].item()
    2.0
    """
    conduction = Velocities() if conduction is None else conduction
    parts = surface_parts(mesh, f0, regions, conduction, cell)
    return _problem(parts, None, JUNCTION_DELAYS, solver, tolerance)


def _problem(parts: Parts, strands: Strands | None, delays, solver, tolerance) -> Eikonal:
    if solver not in SOLVERS:
        raise ModelError(f"unknown solver '{solver}', expected one of {', '.join(SOLVERS)}.")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ModelError(f"tolerance is {tolerance:g} ms, expected a number of at least 0.")
    values = np.asarray(delays, dtype=float)
    if values.shape != (2,) or not (np.isfinite(values) & (values >= 0)).all():
        raise ModelError(f"junction delays are {delays} ms, expected two numbers of at least 0.")
    fields = assembled(parts, strands)
    return Eikonal(**fields, delays=_as_float(delays), solver=solver, tolerance=float(tolerance))


def arrival(
    problem: Eikonal,
    sites: Sites | None = None,
    *,
    at_nodes: Float[Array, "node"] | None = None,
    silent: bool = False,
) -> Float[Array, "node"]:
    r"""Activation times; differentiable in velocities, delays, onsets and positions.

    Forward and reverse mode and ``vmap`` work; the derivative is that of the discrete solution,
    exact to rounding, and takes one sparse solve. Second derivatives are not available. Members of
    a batch are solved in parallel over the processor cores.

    Parameters
    ----------
    problem : Eikonal
        Geometry and velocities.
    sites : Sites, optional
        Where excitation starts.
    at_nodes : (node,) array, optional
        Onsets at nodes of mesh and tree [ms], ``inf`` where none: for plane sources, node sets and
        the roots of the tree.
    silent : bool
        Whether a site outside the mesh, or where nothing conducts, excites nothing. Otherwise it is
        refused, or where it is traced excites the nearest element that conducts.

    Returns
    -------
    (node,) array
        Arrival [ms] at the nodes of the mesh, then of the tree; ``inf`` where nothing arrives, in
        parts that are not connected to a source and where nothing conducts. In float32 unless x64
        is enabled; the ordered solver works in float64 inside.

    Raises
    ------
    ModelError
        If a site lies outside the mesh, a velocity is not positive, or there is no source.

    References
    ----------
    Adjoint at the fixed point: module `twinheart.tissue.eikonal_fixed_point`.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp, numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue import Sites, arrival, build_eikonal
    >>> problem = build_eikonal(Heart(slab((10.0, 2.0, 2.0), 1.0)))
    >>> def last(velocity):
    ...     faster = eqx.tree_at(lambda p: p.velocity, problem, velocity)
    ...     return arrival(faster, Sites([[0.0, 1.0, 1.0]])).max()
    >>> bool(jax.grad(last)(problem.velocity)[0, 0] < 0)  # the faster, the earlier
    True
    """
    if sites is None and at_nodes is None:
        raise ModelError("no source of excitation: give sites, or onsets at nodes.")
    check_positive("a conduction velocity [m/s]", problem.velocity)
    if sites is not None and not silent:
        refuse_outside(problem, sites)
    if at_nodes is not None:
        at_nodes = jnp.asarray(at_nodes, dtype=float)
        if at_nodes.shape != (problem.n_nodes,):
            raise ModelError(
                f"onsets at nodes have shape {at_nodes.shape}, expected ({problem.n_nodes},): one "
                "for each node of mesh and tree, inf where none."
            )
    return _arrival(problem, sites, at_nodes, silent)


@eqx.filter_jit
def _arrival(problem: Eikonal, sites: Sites | None, at_nodes, silent: bool = False) -> Array:
    slow = _checked(problem.velocity) ** -2.0
    source = jnp.full(problem.n_nodes, jnp.inf, slow.dtype)
    if at_nodes is not None:
        source = jnp.where(jnp.isnan(at_nodes), jnp.inf, at_nodes).astype(slow.dtype)
    if sites is not None:
        source = jnp.minimum(source, _site_arrival(problem, sites, slow, silent))
    qt, qs, qe = (
        metric(squares, row, slow)
        for squares, row in zip(problem.squares, problem.rows, strict=True)
    )
    along = jnp.sqrt(qe)
    cost = along[:, None] + problem.junction[:, None] * problem.delays
    solver = problem.solver
    if solver == "auto":
        solver = _default_solver()
    return fixed_point(
        problem.elements, solver, problem.tolerance, problem.cells, qt, qs, cost, source
    )


def _checked(velocity):
    """Refuse velocities that are not positive; under a transformation they give NaN."""
    return jnp.where(velocity > 0, velocity, jnp.nan)


def _default_solver() -> str:
    if jax.default_backend() != "cpu":
        return "sweeps"
    import importlib.util

    return "ordered" if importlib.util.find_spec("numba") else "sweeps"


def metric(squares, row, slow):
    """Squared lengths in the metric [ms2] from those along the axes [mm2]."""
    own = slow[row]
    shape = (slice(None), None) if squares[0].ndim == 2 else slice(None)
    return sum(g * own[:, k][shape] for k, g in enumerate(squares))


def _site_arrival(problem: Eikonal, sites: Sites, slow, silent: bool):
    """Arrival from the sites within their balls, inf elsewhere: onset and local distance."""
    n, count = problem.n_nodes, sites.onsets.shape[0]
    dtype = slow.dtype
    shapes = (
        jax.ShapeDtypeStruct((n,), np.int32),
        jax.ShapeDtypeStruct((count, 3, 3), dtype),
        jax.ShapeDtypeStruct((count,), np.int32),
    )
    arguments = jax.lax.stop_gradient((sites.positions, sites.onsets, sites.radius, slow))
    site, axes, row = on_host(
        partial(problem.axes.nearest_sites, problem.elements, silent=silent),
        shapes,
        *arguments,
        vmap_method="sequential",
    )
    reached = site >= 0
    own = jnp.where(reached, site, count)  # beyond the last: nothing is read, nothing flows back
    take: Any = {"mode": "fill", "fill_value": 0.0}
    positions = jnp.asarray(sites.positions, dtype)
    offset = jnp.asarray(problem.points, dtype) - positions.at[own].get(**take)
    along = jnp.einsum("nki,ni->nk", axes.at[own].get(**take), offset)
    slow_at = slow[row][:, jnp.asarray(problem.axes.columns)]
    squared = (along**2 * slow_at.at[own].get(**take)).sum(axis=1)
    distance = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
    onset = jnp.asarray(sites.onsets, dtype).at[own].get(**take)
    return jnp.where(reached, onset + distance, jnp.inf)


def refuse_outside(problem: Eikonal, sites: Sites) -> None:
    """Refuse sites outside the mesh; traced ones pass."""
    if isinstance(sites.positions, Tracer):
        return
    positions = np.asarray(sites.positions, dtype=float)
    _, gap = problem.elements.locate(positions)
    outside = np.flatnonzero(gap > problem.axes.facet)
    if outside.size:
        first = outside[0]
        place = ", ".join(f"{x:.1f}" for x in positions[first])
        raise ModelError(
            f"{outside.size} of {len(positions)} sites lie outside the muscle (first: site {first} "
            f"at ({place}) mm, {gap[first]:.2f} mm away; up to {problem.axes.facet:.2f} mm is "
            "taken for the facets of the mesh): move them onto it."
        )
