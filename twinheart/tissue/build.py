"""From a heart and its physiology to a monodomain problem ready to run."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel, parameter_names
from twinheart.cell.modify import core, one_per_node, same_equations
from twinheart.errors import ModelError, SolverError
from twinheart.fem import fullest_kind
from twinheart.mesh.quality import volumes
from twinheart.tissue.cable import (
    cable_velocity,
    continuum_velocity,
    lattice_spacing,
    matched_smoothing,
    scalar_parameters,
    tune_cv,
)
from twinheart.tissue.conductivity import (
    Conduction,
    Conductivities,
    NonConducting,
    Velocities,
    by_region,
)
from twinheart.tissue.discrete import Assembly, assemble
from twinheart.tissue.monodomain import Monodomain, in_node_order
from twinheart.tissue.purkinje import ConductionSystem, strands_of
from twinheart.tissue.scheme import (
    CrankNicolson,
    Explicit,
    Scheme,
    iterations_needed,
    stages_needed,
)
from twinheart.tissue.stimulus import Stimulus, at_purkinje, stimulated_roots, stimulus_nodes

# Names under which `simulate` and the command line know the schemes.
SCHEMES: dict[str, Scheme] = {
    "default": Explicit(),
    "explicit": Explicit(),
    "lumped": Explicit(smoothed=False),
    "crank-nicolson": CrankNicolson(),
}
AXES = ("along", "across", "normal to the sheets")
# Beyond this factor between numerical and continuum diffusivity the mesh, not the tissue, decides.
_LARGE_FACTOR = 2.0
# A cable that crawls at less than this share of the continuum's velocity blocks in three
# dimensions, where a curved front has more to charge.
_BLOCKED = 0.25
_BLOCK_MS = 0.5
# Measured on the Niederer slab at 0.5 mm, TT06, dt 0.02 ms; float32 is within 4e-5 ms of float64.
_HALVES = (
    "in bfloat16 nodes of a slab of 20 mm are activated up to 2.8 ms off, in float16 parameters of "
    "the cell overflow and no potential stays finite"
)


class ConductionWarning(UserWarning):
    """The mesh is so coarse that its numerical diffusion departs far from the tissue's."""


class Built(NamedTuple):
    """A problem, what it was made of, and what is known of its conduction beforehand.

    Attributes
    ----------
    problem : Monodomain
        Ready to run.
    assembly : Assembly
        Geometry; `Assembly.tissue` gives the diffusion for other diffusivities.
    diffusivity : (region, 3) array
        Numerical diffusivities along fibre, sheet, normal [mm^2/ms]; with a conduction system the
        two rows of `twinheart.tissue.discrete.Strands` follow.
    conduction : list of dict
        For each region and direction: velocity expected on this mesh, velocity in the continuum
        [m/s], numerical diffusivity, factor.
    stiffness : dict
        Largest diffusion eigenvalue [1/ms], its place [mm], largest explicit step [ms].
    """

    problem: Monodomain
    assembly: Assembly
    diffusivity: Float[np.ndarray, "region 3"]
    conduction: list[dict]
    stiffness: dict


def build_monodomain(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    conduction: Conduction | dict[int, Conduction],
    stimuli: Sequence[Stimulus],
    *,
    dt: float = 0.02,
    scheme: str | Scheme = "default",
    threshold: float = 0.0,
    lead_field: Float[np.ndarray, "electrode node"] | None = None,
    probes: Int[np.ndarray, "probe"] | None = None,
    smoothing: float | None = None,
    purkinje: ConductionSystem | None = None,
    may_block: bool = False,
    dtype=np.float32,
) -> Built:
    """Assemble the monodomain problem of a heart.

    Parameters
    ----------
    heart : Heart
        Mesh [mm], fibres, regions.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        Cell model, or one for each region tag; a node takes the region that fills most of its
        surroundings. Parameters are numbers or one value for each node of the mesh. Cells that
        differ in numbers only are computed as one model.
    conduction : Conductivities, Velocities, NonConducting or dict of int to any of them
        Tissue, or one for each region tag.
    stimuli : sequence of Stimulus
        Pulses.
    dt : float
        Time step [ms].
    scheme : str or Scheme
        A name in `SCHEMES` or a scheme. ``"explicit"`` refuses a `dt` that forward Euler cannot
        take; ``"default"`` adds Chebyshev stages instead.
    threshold : float
        Activation threshold [mV]; the N-version benchmark uses 0.
    lead_field : (electrode, node) array, optional
        In mesh order.
    probes : (probe,) int array, optional
        Mesh nodes whose V_m is recorded; those of the conduction system follow the mesh's.
    smoothing : float, optional
        Smoothing of the ionic current everywhere, instead of the matched one.
    purkinje : ConductionSystem, optional
        Purkinje tree coupled to the muscle.
    may_block : bool
        Run raw conductivities even where conduction is expected to block on this mesh.
    dtype : dtype
        Precision of the time loop, float32 or float64; set-up is in float64.

    Returns
    -------
    Built
        The problem and what is known of it.

    Raises
    ------
    ModelError
        If a tag has no cell or conductivity, conduction would block on this mesh, a stimulus hits
        no node.
    SolverError
        If `dt` is not usable.
    """
    if not (math.isfinite(dt) and 0 < dt <= 1.0):
        raise SolverError(f"dt is {dt:g} ms, expected more than 0 and at most 1 ms.")
    _refuse_halves(dtype)
    name, method = _named_scheme(scheme)
    cells = by_region(heart, cell, "cell model")
    tissues = by_region(heart, conduction, "conductivity")
    strands = None if purkinje is None else strands_of(heart, purkinje)
    points = heart.mesh.points
    if strands is not None:
        points = np.concatenate([points, strands.points])
    models, node_model = models_of_nodes(heart, cells, len(points), purkinje)
    diffusivity, weights, report = _diffusivities(heart, cells, tissues, dt, method, smoothing)
    if not may_block:
        _refuse_block(report, lattice_spacing(heart.mesh))
    if purkinje is not None:
        row = _tree_row(purkinje, _tree_cell(heart, cells, purkinje), dt, method, smoothing)
        report.append(row)
        diffusivity = _with_rows(diffusivity, row["diffusivity"], float(purkinje.junction))
        weights = _with_rows(weights, row["smoothing"], 0.0)
    dead = [tag for tag, tissue in tissues.items() if isinstance(tissue, NonConducting)]
    assembly = assemble(
        heart,
        node_model,
        smoothing=weights,
        strands=strands,
        conducting=~np.isin(heart.regions, dead) if dead else None,
        pad=True,
    )
    value, worst = assembly.stiffest(diffusivity)
    stiffness = {
        "lambda_max": value,
        "dt_explicit": 2.0 / (1.1 * value),
        "worst_node": worst,
        "worst_place_mm": points[worst].tolist(),
    }
    order = assembly.order
    if lead_field is None:
        lead_field = np.zeros((0, heart.mesh.n_nodes))
    problem = Monodomain(
        tissue=assembly.tissue(
            diffusivity, consistent=isinstance(method, CrankNicolson), dtype=dtype
        ),
        models=tuple(
            in_node_order(m, order[node_model[order] == k], len(points)) for k, m in models
        ),
        model_sizes=tuple(int((node_model[order] == k).sum()) for k, _ in models),
        stimuli=tuple(stimuli),
        stimulus_masks=tuple(
            jnp.asarray(assembly.to_node_order(stimulated(heart, purkinje, s)), dtype)
            for s in stimuli
        ),
        scheme=fitted(name, method, dt, stiffness),
        dt=jnp.asarray(dt, dtype=float),
        threshold=jnp.asarray(threshold, dtype=float),
        lead_field=jnp.asarray(assembly.to_node_order(lead_field), dtype),
        probes=jnp.asarray(assembly.place[np.asarray([] if probes is None else probes, dtype=int)]),
        block=max(1, round(_BLOCK_MS / dt)),
    )
    return Built(problem, assembly, diffusivity, report, stiffness)


def _refuse_halves(dtype) -> None:
    name = jnp.dtype(dtype).name
    if name not in ("float32", "float64"):
        raise SolverError(
            f"the precision of the time loop is {name}, expected float32 or float64: {_HALVES}."
        )


def stimulated(heart: Heart, purkinje: ConductionSystem | None, stimulus: Stimulus) -> np.ndarray:
    """Nodes of the mesh that a stimulus acts on, followed by those of the tree if it is there."""
    tree = None if purkinje is None else purkinje.tree
    if at_purkinje(stimulus.where):
        roots = stimulated_roots(tree, str(stimulus.where))
        return np.append(np.zeros(heart.mesh.n_nodes, dtype=bool), roots)
    return stimulus_nodes(heart, stimulus.where)


def _tree_cell(heart: Heart, cells, purkinje: ConductionSystem) -> AbstractCellModel:
    """Cell of the tree: its own, or that of the region with the most muscle."""
    if purkinje.cell is not None:
        return purkinje.cell
    size = np.abs(volumes(heart.mesh.points, heart.mesh.tets))
    largest = max(cells, key=lambda tag: size[heart.regions == tag].sum())
    return scalar_parameters(cells[largest])


def _tree_row(purkinje: ConductionSystem, cell, dt: float, scheme: Scheme, smoothing) -> dict:
    """Diffusivity and smoothing of the strands, and what to expect of them."""
    edge = float(purkinje.tree.lengths.mean())
    tuned = _tuned(cell, Velocities(float(purkinje.cv)), 0, edge, dt, scheme, smoothing)
    return {"region": "purkinje", "axis": "along", **tuned}


def _with_rows(table: np.ndarray, *values: float) -> np.ndarray:
    """The table with a row for each value, in its first column."""
    return np.vstack([table, [[value, 0.0, 0.0] for value in values]])


def _named_scheme(scheme: str | Scheme) -> tuple[str, Scheme]:
    if not isinstance(scheme, str):
        return "given", scheme
    if scheme not in SCHEMES:
        raise SolverError(f"unknown scheme '{scheme}'; expected one of {', '.join(SCHEMES)}.")
    return scheme, SCHEMES[scheme]


def fitted(name: str, scheme: Scheme, dt: float, stiffness: dict) -> Scheme:
    """The scheme with as many stages or iterations as this tissue needs at this step."""
    value = stiffness["lambda_max"]
    if isinstance(scheme, CrankNicolson):
        return CrankNicolson(scheme.consistent, iterations_needed(dt, value))
    stages = stages_needed(dt, value)
    if name == "explicit" and stages > 1:
        place = ", ".join(f"{x:.1f}" for x in stiffness["worst_place_mm"])
        raise SolverError(
            f"dt = {dt:g} ms is too large for the explicit scheme on this mesh, the largest stable "
            f"step is {stiffness['dt_explicit']:.3g} ms (set by the elements at {place} mm): lower "
            'dt, or take scheme "default", which adds Chebyshev stages.'
        )
    return Explicit(stages, scheme.smoothed)


def models_of_nodes(heart: Heart, cells: dict[int, AbstractCellModel], n_nodes: int, purkinje):
    """Models as (group, model), one for each set of equations, and the group of every node.

    Cells that differ in numbers only become one model with per-node parameters: one kernel is
    compiled and run for all of them. Nodes beyond the mesh's are those of the Purkinje tree.
    """
    models, _, node_model = cells_of_nodes(heart, cells)
    for model in models:
        _check_parameters(model, heart.mesh.n_nodes)
    if purkinje is not None:
        models = [_extended(model, heart.mesh.n_nodes, n_nodes) for model in models]
        models.append(_tree_cell(heart, cells, purkinje))
        added = np.full(n_nodes - heart.mesh.n_nodes, len(models) - 1, dtype=np.int32)
        node_model = np.concatenate([node_model, added])
    groups: list[list[int]] = []
    for k in np.unique(node_model).tolist():
        like = next((g for g in groups if same_equations(models[g[0]], models[k])), None)
        if like is None:
            groups.append([k])
        else:
            like.append(k)
    group_of, rank = np.zeros((2, len(models)), dtype=np.int32)
    for g, members in enumerate(groups):
        group_of[members], rank[members] = g, np.arange(len(members))
    joined = [
        (g, one_per_node([models[k] for k in members], rank[node_model]))
        for g, members in enumerate(groups)
    ]
    return joined, group_of[node_model]


def _extended(model: AbstractCellModel, n_mesh: int, n_nodes: int) -> AbstractCellModel:
    """The model with per-node parameters as long as mesh and tree; the tree's part is not used."""

    def extend(leaf):
        if not (eqx.is_array(leaf) and leaf.shape == (n_mesh,)):
            return leaf
        return jnp.concatenate([leaf, jnp.broadcast_to(leaf[-1], (n_nodes - n_mesh,))])

    return jax.tree.map(extend, model)


def cells_of_nodes(
    heart: Heart, cell: AbstractCellModel | dict[int, AbstractCellModel]
) -> tuple[list[AbstractCellModel], dict[int, int], Int[np.ndarray, "node"]]:
    """Distinct cells, and which of them regions and nodes have.

    Parameters
    ----------
    heart : Heart
        A node has the cell of the regions that fill most of its surroundings.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        One, or one for each region tag; the same object is the same cell.

    Returns
    -------
    list of AbstractCellModel, dict of int to int, (node,) int array
        Cells; number of each by region tag; number of each node.
    """
    cells = by_region(heart, cell, "cell model")
    models = list({id(model): model for model in cells.values()}.values())
    number = {tag: next(k for k, m in enumerate(models) if m is cells[tag]) for tag in cells}
    if len(models) == 1:
        return models, number, np.zeros(heart.mesh.n_nodes, dtype=np.int32)
    of_tet = np.vectorize(number.get)(heart.regions)
    return models, number, fullest_kind(heart.mesh, of_tet, len(models))


def _check_parameters(model: AbstractCellModel, n_nodes: int) -> None:
    inner = core(model)
    for name in parameter_names(inner):
        shape = np.shape(getattr(inner, name))
        if shape not in ((), (n_nodes,)):
            raise ModelError(
                f"parameter {name} of {inner.name} has shape {shape}, expected one number or one "
                f"for each of the {n_nodes} nodes of the mesh."
            )


def _diffusivities(heart, cells, tissues, dt, scheme, smoothing):
    """Diffusivities and smoothing of every region and direction, and what to expect of them."""
    spacing = lattice_spacing(heart.mesh)
    axes = range(1) if heart.f0 is None else range(2) if heart.s0 is None else range(3)
    known: dict = {}
    report = []
    diffusivity, weights = np.zeros((len(tissues), 3)), np.zeros((len(tissues), 3))
    for k, (tag, tissue) in enumerate(tissues.items()):
        if isinstance(tissue, NonConducting):
            continue
        for axis in axes:
            key = (id(cells[tag]), id(tissue), axis)
            if key not in known:
                where = (axis, spacing, dt, scheme, smoothing)
                if isinstance(tissue, Velocities):
                    known[key] = _tuned(cells[tag], tissue, *where)
                else:
                    known[key] = _raw(cells[tag], tissue, *where)
            diffusivity[k, axis] = known[key]["diffusivity"]
            weights[k, axis] = known[key]["smoothing"]
            report.append({"region": tag, "axis": AXES[axis], **known[key]})
        if len(axes) == 2:  # no sheets: the normal is as good as any direction across
            diffusivity[k, 2], weights[k, 2] = diffusivity[k, 1], weights[k, 1]
    _warn_large_factors(report, spacing)
    return diffusivity, weights, report


def _tuned(model, tissue: Velocities, axis, spacing, dt, scheme, smoothing) -> dict:
    velocity = float(tissue.cv[axis])
    tuned = tune_cv(model, velocity, spacing, dt=dt, scheme=scheme, smoothing=smoothing)
    return {
        "diffusivity": tuned.diffusivity,
        "smoothing": tuned.smoothing,
        "velocity": tuned.velocity,
        "continuum_diffusivity": tuned.continuum,
        "continuum_velocity": velocity,
        "factor": tuned.factor,
        "velocity_error": tuned.velocity / velocity - 1.0,
    }


def _raw(model, tissue: Conductivities, axis, spacing, dt, scheme, smoothing) -> dict:
    d = float(tissue.diffusivity[axis])
    if smoothing is None:
        matched = isinstance(scheme, Explicit) and scheme.smoothed
        smoothing = matched_smoothing(model, d, spacing, dt=dt) if matched else 0.0
    ideal = continuum_velocity(model, d)
    velocity = float(cable_velocity(model, d, spacing, dt=dt, scheme=scheme, smoothing=smoothing))
    return {
        "diffusivity": d,
        "smoothing": smoothing,
        "velocity": velocity,
        "continuum_diffusivity": d,
        "continuum_velocity": ideal,
        "factor": 1.0,
        "velocity_error": velocity / ideal - 1.0,
    }


def _refuse_block(report: list[dict], spacing: float) -> None:
    for row in report:
        if row["velocity"] < _BLOCKED * row["continuum_velocity"]:
            raise ModelError(
                f"a wave {row['axis']} the fibres would block on this mesh: expected velocity "
                f"{row['velocity']:.2f} m/s on a spacing of {spacing:.2f} mm, "
                f"{row['continuum_velocity']:.2f} m/s in the continuum; refine the mesh or give "
                "velocities instead of raw conductivities."
            )


def _warn_large_factors(report: list[dict], spacing: float) -> None:
    large = {(r["axis"], round(r["factor"], 1)) for r in report if r["factor"] > _LARGE_FACTOR}
    for axis, factor in sorted(large):
        warnings.warn(
            f"on this mesh (spacing {spacing:.2f} mm) the numerical diffusion {axis} the fibres is "
            f"{factor:g} times the tissue's to reach the wanted velocity: activation times follow "
            "the velocity along the edges of a regular mesh, are earlier along its diagonals (at a "
            "factor of 2 plane waves ran there twice as fast), and the front is wider than real; "
            "refine the mesh.",
            ConductionWarning,
            stacklevel=2,
        )


def default_unroll() -> int:
    """Steps in one loop body: 5 where launches are dear (GPU), 1 on CPU."""
    return 1 if jax.default_backend() == "cpu" else 5
