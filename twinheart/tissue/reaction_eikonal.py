r"""Reaction-eikonal: the eikonal says when the wave arrives, the ionic cells do the rest.

On a coarse mesh a monodomain wave conducts wrongly or not at all, because the front is thinner than
an element; what follows the front is smooth there as well. So the front is imposed. When the wave
arrives, :math:`s = t - \tau(x)` being the time since, every cell receives the axial current that a
plane travelling wave would feed it,

.. math:: \partial_t V = -i_{ion} + \frac{D}{c^2} \ddot U(s) + w(s)\, \nabla \cdot D \nabla V,

with the template :math:`U` of its model (`twinheart.tissue.template`). Without diffusion
(:math:`w = 0`, called RE-) each cell then goes through the upstroke of the tissue and repolarises
by itself; with it (RE+) diffusion takes over some milliseconds after the front has passed, with the
diffusivity that belongs to the velocity, and smooths repolarisation as it does in tissue. Both run
in the time loop of the monodomain equation, for one beat or for a train.

Neic et al. 2017 (doi:10.1016/j.jcp.2017.06.020), who proposed the method, feed a current that
imitates the foot of the action potential, and let diffusion act on the front as well. The whole
axial current makes the upstroke right to the crest, and counts nothing twice.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.errors import SolverError
from twinheart.tissue.build import AXES, Built, fitted, models_of_nodes
from twinheart.tissue.conductivity import Conduction, Conductivities, NonConducting, by_region
from twinheart.tissue.discrete import assemble
from twinheart.tissue.monodomain import Monodomain, in_node_order
from twinheart.tissue.scheme import Explicit, Uncoupled
from twinheart.tissue.template import Templates, action_potential, templates_of
from twinheart.tissue.wave import FOOT, PASSED, STEP, TAKEN_OVER, Wave

_BLOCK_MS = 0.5  # as in the monodomain loop


def build_reaction_eikonal(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    conduction: Conduction | dict[int, Conduction],
    lat: Float[np.ndarray, "beat node"],
    *,
    dt: float = 0.02,
    diffusion: bool = True,
    threshold: float = 0.0,
    templates: Templates | None = None,
    lead_field: Float[np.ndarray, "electrode node"] | None = None,
    probes: Int[np.ndarray, "probe"] | None = None,
    dtype=np.float32,
) -> Built:
    """Assemble the reaction-eikonal problem of a heart whose waves arrive at given times.

    Parameters
    ----------
    heart : Heart
        Mesh [mm], fibres, regions.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        Cell model, or one for each region tag.
    conduction : Conductivities, Velocities, NonConducting or dict of int to any of them
        Tissue, or one for each region tag: the diffusivity after the front.
    lat : (beat, node) array
        Arrival of every beat [ms]; ``inf`` or NaN where it does not come.
    dt : float
        Time step [ms].
    diffusion : bool
        Let diffusion act after the front (RE+), or not at all (RE-).
    threshold : float
        Activation threshold [mV], that of the arrivals.
    templates : Templates, optional
        Those of `cell`, where they are known.
    lead_field : (electrode, node) array, optional
        In mesh order.
    probes : (probe,) int array, optional
        Mesh nodes whose V_m is recorded.
    dtype : dtype
        Precision of the time loop.

    Returns
    -------
    Built
        For `twinheart.tissue.run`.

    Raises
    ------
    ModelError
        If a tag has no cell or conductivity, or a cell has no template.
    SolverError
        If `dt` is not usable.

    References
    ----------
    Neic et al. 2017, doi:10.1016/j.jcp.2017.06.020.

    Examples
    --------
    >>> import numpy as np, twinheart as th
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue import Velocities, run
    >>> from twinheart.tissue.reaction_eikonal import build_reaction_eikonal
    >>> mesh = th.mesh.generate.slab((6.0, 2.0, 2.0), 2.0)
    >>> lat = mesh.points[None, :, 0] / 0.6
    >>> cell = get_model("mitchell-schaeffer")
    >>> built = build_reaction_eikonal(th.Heart(mesh), cell, Velocities(), lat, dt=0.1)
    >>> found = built.problem.tissue.to_mesh_order(run(built, 15.0, points=mesh.points).state.lat)
    >>> bool(abs(found - lat[0]).max() < 0.5)
    True
    """
    if not (np.isfinite(dt) and 0 < dt <= 1.0):
        raise SolverError(f"dt is {dt:g} ms, expected more than 0 and at most 1 ms.")
    cells = by_region(heart, cell, "cell model")
    tissues = by_region(heart, conduction, "conductivity")
    n_nodes = heart.mesh.n_nodes
    models, node_model = models_of_nodes(heart, cells, n_nodes, None)
    diffusivity, report = _diffusivities(cells, tissues, threshold)
    dead = [tag for tag, tissue in tissues.items() if isinstance(tissue, NonConducting)]
    assembly = assemble(
        heart,
        node_model,
        smoothing=0.0,
        conducting=~np.isin(heart.regions, dead) if dead else None,
        pad=True,
    )
    value, worst = assembly.stiffest(diffusivity) if diffusion else (0.0, 0)
    stiffness = {
        "lambda_max": value,
        "dt_explicit": 2.0 / (1.1 * value) if value else float("inf"),
        "worst_node": worst,
        "worst_place_mm": heart.mesh.points[worst].tolist(),
    }
    order = assembly.order
    if templates is None:
        templates = templates_of(heart, cell, threshold=threshold)
    field = np.zeros((0, n_nodes)) if lead_field is None else lead_field
    scheme = (
        fitted("default", Explicit(smoothed=False), dt, stiffness) if diffusion else Uncoupled()
    )
    problem = Monodomain(
        tissue=assembly.tissue(diffusivity, dtype=dtype),
        models=tuple(in_node_order(m, order[node_model[order] == k], n_nodes) for k, m in models),
        model_sizes=tuple(int((node_model[order] == k).sum()) for k, _ in models),
        stimuli=(),
        stimulus_masks=(),
        scheme=scheme,
        dt=jnp.asarray(dt, dtype=float),
        threshold=jnp.asarray(threshold, dtype=float),
        lead_field=jnp.asarray(assembly.to_node_order(field), dtype),
        probes=jnp.asarray(assembly.place[np.asarray([] if probes is None else probes, dtype=int)]),
        block=max(1, round(_BLOCK_MS / dt)),
        wave=wave_at(lat, templates, order, dt=dt, dtype=dtype),
    )
    return Built(problem, assembly, diffusivity, report, stiffness)


def _diffusivities(cells, tissues, threshold: float) -> tuple[np.ndarray, list[dict]]:
    """Diffusivity of every region along fibre, sheet and normal: that of the velocity."""
    table, report = np.zeros((len(tissues), 3)), []
    for k, (tag, tissue) in enumerate(tissues.items()):
        if isinstance(tissue, NonConducting):
            continue
        axial = float(action_potential(cells[tag], threshold=threshold).axial)
        if isinstance(tissue, Conductivities):
            table[k] = np.asarray(tissue.diffusivity)
        else:
            table[k] = axial * np.asarray(tissue.cv) ** 2
        for axis, d in zip(AXES, table[k], strict=True):
            velocity = float(np.sqrt(d / axial))
            report.append(
                {
                    "region": tag,
                    "axis": axis,
                    "diffusivity": float(d),
                    "velocity": velocity,
                    "continuum_velocity": velocity,
                    "factor": 1.0,
                    "velocity_error": 0.0,
                }
            )
    return table, report


def wave_at(
    lat: Float[np.ndarray, "beat node"],
    templates: Templates,
    order: Int[np.ndarray, "place"],
    *,
    dt: float,
    dtype=np.float32,
) -> Wave:
    r"""The wave of given arrivals, in the order of a computation.

    The current over a step is the mean of that of the travelling wave,
    :math:`(D/c^2)(\dot U(s + \Delta t) - \dot U(s)) / \Delta t`: what a step misses of the
    upstroke, the next one makes up for.

    Parameters
    ----------
    lat : (beat, node) array
        Arrivals in mesh order [ms].
    templates : Templates
        Of the nodes, in mesh order.
    order : (place,) int array
        Mesh node of every node of the computation.
    dt : float
        Time step [ms].
    dtype : dtype
        Precision.

    Returns
    -------
    Wave
        For `twinheart.tissue.monodomain.Monodomain`.
    """
    s = STEP * np.arange(round((FOOT + TAKEN_OVER) / STEP)) - FOOT
    currents = [ap.axial * (ap.slope(s + dt) - ap.slope(s)) / dt for ap in templates.tables]
    fade = np.clip((TAKEN_OVER - s) / (TAKEN_OVER - PASSED), 0.0, 1.0)
    fade[[0, -1]] = 0.0  # what lies beyond the table takes its ends
    lat = np.where(np.isfinite(lat), lat, np.inf)
    begun = -np.clip(lat.min(axis=0), 0.0, FOOT)
    risen = jnp.stack([ap(begun) - ap.rest for ap in templates.tables])
    rise = risen[templates.table, np.arange(lat.shape[1])]
    return Wave(
        lat=jnp.asarray(lat[:, order], dtype),
        currents=jnp.asarray(jnp.stack(currents) * fade, dtype),
        table=jnp.asarray(templates.table)[order],
        rise=jnp.asarray(rise[order], dtype),
    )
