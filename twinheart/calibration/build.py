"""From a twin to the forward model of its calibration: sites, fields, leads."""

import copy
import dataclasses
import functools
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.anatomy.chart import chart_of
from twinheart.anatomy.coordinates import add_coordinates, coordinates_of
from twinheart.anatomy.endocardium import endocardium
from twinheart.anatomy.frame import heart_frame
from twinheart.anatomy.root_sites import DURRER
from twinheart.anatomy.surfaces import tag_surfaces
from twinheart.calibration.model import (
    Body,
    Conduction,
    Excitation,
    Model,
)
from twinheart.calibration.observation import Observation
from twinheart.calibration.parameters import Parameters
from twinheart.calibration.repolarisation import build_repolarisation
from twinheart.calibration.smooth_field import field_basis
from twinheart.ecg import Electrodes, lead_shares
from twinheart.ecg.leads import lead_weights
from twinheart.ecg.movable_field import movable_field
from twinheart.errors import InputError, ModelError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import mean_edge
from twinheart.tissue import Eikonal, NonConducting, build_eikonal
from twinheart.tissue.conductivity import by_region
from twinheart.tissue.eikonal_parts import Axes
from twinheart.tissue.purkinje import FAST_TAG
from twinheart.tissue.template import templates_of
from twinheart.tissue.wave_ecg import WaveEcg, wave_ecg
from twinheart.twin import Twin, intracellular_tensor

_LV, _RV = SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM
_RADIUS = 2.0  # mm: at least, of the ball around a site in which arrival is exact
# Order in which the ten sites of a normal beat are taken where fewer are wanted: both ventricles.
_IMPORTANCE = (0, 1, 7, 2, 6, 3, 9, 5, 8, 4)


class StartSite(eqx.Module):
    """A place on an endocardium where excitation may start.

    Parameters
    ----------
    name : str
        Anatomical name.
    right : bool
        In the right ventricle.
    ab, rt : float
        Height and rotation, see `twinheart.anatomy.endocardium`.
    onset : float
        After the onset of the QRS [ms].
    """

    name: str = eqx.field(static=True)
    right: bool = eqx.field(static=True)
    ab: float
    rt: float
    onset: float


def prepared_heart(heart: Heart) -> Heart:
    """The heart with tagged surfaces and coordinates, found where it has none.

    Parameters
    ----------
    heart : Heart
        Ventricles.

    Returns
    -------
    Heart
        The same where it has both.

    Raises
    ------
    MeshError
        If its shape is no heart's.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.calibration.build import prepared_heart
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> heart = prepared_heart(Heart(lv_ellipsoid(edge=4.0)))
    >>> sorted(heart.mesh.point_fields)
    ['ab', 'rt_cos', 'rt_sin', 'surf_class', 'tm', 'tv']
    """
    mesh = heart.mesh
    if "surf_class" not in mesh.point_fields:
        mesh = tag_surfaces(mesh)
    if coordinates_of(mesh) is None:
        mesh = add_coordinates(mesh)
    return heart if mesh is heart.mesh else Heart(mesh, heart.f0, heart.s0, heart.regions)


def start_sites(heart: Heart, count: int = len(DURRER)) -> tuple[StartSite, ...]:
    """Sites of a normal beat, and further ones between them.

    Parameters
    ----------
    heart : Heart
        Ventricles with tagged surfaces, see `prepared_heart`.
    count : int
        How many. The first ten are those of `twinheart.anatomy.root_sites`; each further one lies
        on the endocardium as far as possible from all before, and starts when a wave of 1.5 m/s
        from them would arrive.

    Returns
    -------
    tuple of StartSite
        Those in ventricles that the heart has.

    Raises
    ------
    ModelError
        If fewer than one is asked for.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.calibration.build import prepared_heart, start_sites
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> heart = prepared_heart(Heart(lv_ellipsoid(edge=4.0)))
    >>> [site.name for site in start_sites(heart, 8)][-4:]
    ['LV posterolateral', 'LV 6', 'LV 7', 'LV 8']
    """
    if count < 1:
        raise ModelError(f"{count} sites, expected at least 1.")
    surfaces = {side: endocardium(heart.mesh, side) for side in (_LV, _RV)}
    sites, places = [], []
    for k in sorted(_IMPORTANCE[:count]):
        name, side, ab, rt, onset = DURRER[k]
        surface = surfaces[side]
        if surface is not None:
            sites.append(StartSite(name, side == _RV, ab, rt, onset))
            places.append(surface.place(ab, rt))
    known = [(side, surface) for side, surface in surfaces.items() if surface is not None]
    points = np.concatenate([s.points[s.ab < 0.85] for _, s in known])
    ab = np.concatenate([s.ab[s.ab < 0.85] for _, s in known])
    rt = np.concatenate([s.rt[s.ab < 0.85] for _, s in known])
    right = np.concatenate([np.full((s.ab < 0.85).sum(), side == _RV) for side, s in known])
    while len(sites) < count and len(points):
        gap = np.linalg.norm(points[:, None] - np.stack(places), axis=2)
        far = int(gap.min(axis=1).argmax())
        onset = min(s.onset + g / 1.5 for s, g in zip(sites, gap[far], strict=True))
        name = f"{'RV' if right[far] else 'LV'} {len(sites) + 1}"
        sites.append(StartSite(name, bool(right[far]), float(ab[far]), float(rt[far]), onset))
        places.append(points[far])
    return tuple(sites)


def build_model(
    twin: Twin,
    data: Observation,
    free: Parameters,
    *,
    sites: Sequence[StartSite] = (),
    places: Float[np.ndarray, "place 3"] | None = None,
    dtype=np.float32,
) -> Model:
    """Build the forward model of a calibration.

    Parameters
    ----------
    twin : Twin
        Heart (see `prepared_heart`), cells, velocities, electrodes; with a Purkinje tree,
        excitation starts at its roots, and `sites` are left out.
    data : Observation
        Its leads, times and filter are those of the predicted ECG.
    free : Parameters
        What is going to change; only that is prepared for.
    sites : sequence of StartSite
        Where excitation starts.
    places : (place, 3) array, optional
        Of smooth fields, see `field_places` [mm].
    dtype : dtype
        Precision of potentials.

    Returns
    -------
    Model
        Call it with values.

    Raises
    ------
    InputError
        If a parameter makes no sense with this twin.
    ModelError
        If the twin has no electrodes, or nowhere to start.
    """
    if twin.electrodes is None:
        raise ModelError("the twin has no electrodes: there is no ECG to compare.")
    moving = any(name.split(".")[0] in ("electrode", "pose") for name in _names(free))
    if (moving or "source_across" in free) and twin.lead_field is not None:
        raise InputError(
            "a stored lead field holds electrodes, the heart's pose and its conductivities fixed: "
            "leave it out (unbounded medium), or do not free electrode.*, pose.* or source_across."
        )
    problem, conduction = _conduction(twin, free, places)
    names, weights = _weights(twin.electrodes, data.names)
    sigma_i = intracellular_tensor(twin)
    mesh = twin.heart.mesh
    if twin.lead_field is None:
        shares = lead_shares(mesh, twin.electrodes, sigma_i, dtype=dtype)
    else:
        twin.lead_field.check(twin.heart, sigma_i=sigma_i)
        shares = np.asarray(twin.lead_field.shares)
    templates = templates_of(twin.heart, twin.cell)
    # Errors of single elements average out, so the typical velocity decides how finely a front is
    # sampled, not the slowest.
    typical = float(jnp.sqrt(jnp.prod(conduction.usual[:2])))

    def wave_of(shares) -> WaveEcg:
        return wave_ecg(
            mesh.tets,
            np.einsum("le,etk->ltk", weights, shares),
            templates,
            data.t,
            crossing=mean_edge(mesh) / typical,
            lowpass=data.lowpass,
            dtype=dtype,
        )

    across = None
    if "source_across" in free:
        own = _across_fibres(twin.heart, sigma_i)
        if moving:
            across = (movable_field(mesh, own, dtype=dtype).flux,)
        else:
            part = wave_of(lead_shares(mesh, twin.electrodes, own, dtype=dtype))
            across = (part.shares, part.lead_field)
    body = Body(
        leads=names,
        weights=jnp.asarray(weights),
        positions=jnp.asarray(twin.electrodes.positions),
        centre=jnp.asarray(heart_frame(mesh).centre),
        gained=_gained(free, names),
        moved=_moved(free, twin.electrodes),
        field=movable_field(mesh, sigma_i, dtype=dtype) if moving else None,
        across=across,
    )
    return Model(
        problem=problem,
        conduction=conduction,
        excitation=_excitation(twin, sites),
        repolarisation=build_repolarisation(
            twin.heart, twin.cell, np.asarray(templates.apd90), free, places
        ),
        body=body,
        wave=wave_of(shares),
    )


def with_repolarisation(
    model: Model, twin: Twin, free: Parameters, places: Float[np.ndarray, "place 3"] | None = None
) -> Model:
    """The same model, prepared for free parameters of repolarisation.

    Parameters
    ----------
    model : Model
        From `build_model`.
    twin : Twin
        The same twin.
    free, places
        As of `build_model`.

    Returns
    -------
    Model
        Its gradients, channels and field of the APD are those that `free` needs.

    Raises
    ------
    InputError
        If a field has not as many places as numbers, or no cell has a channel.
    """
    usual = np.asarray(model.repolarisation.usual)
    made = build_repolarisation(twin.heart, twin.cell, usual, free, places)
    return eqx.tree_at(lambda m: m.repolarisation, model, made)


def by_element(problem: Eikonal) -> Eikonal:
    """The same problem, its velocities one row for each tetrahedron and then those of before.

    Parameters
    ----------
    problem : Eikonal
        Whose velocities are one row for each region that conducts.

    Returns
    -------
    Eikonal
        Rows of the tetrahedra that conduct, in the order of its cells, then the rows it had.
    """
    count, rows = len(problem.cells[0]), problem.rows
    return dataclasses.replace(
        problem,
        velocity=jnp.concatenate([problem.velocity[rows[0]], problem.velocity]),
        rows=(jnp.arange(count, dtype=rows[0].dtype), rows[1] + count, rows[2] + count),
        axes=_axes_by_element(problem.axes, count),
    )


@functools.lru_cache(maxsize=8)  # one object for one problem: nothing is compiled again
def _axes_by_element(axes: Axes, count: int) -> Axes:
    """Directions for sites, which look up the row of the tetrahedron they lie in."""
    own = copy.copy(axes)
    own.rows = np.arange(count)
    return own


def _names(free: Parameters) -> list[str]:
    return [entry.name for entry in free.entries]


def _across_fibres(heart: Heart, sigma_i) -> Float[np.ndarray, "tet 3 3"]:
    """The part of the conductivity that drives no current along the fibres."""
    if heart.f0 is None:
        raise InputError("source_across is free, but the heart has no fibres: add them.")
    along = np.einsum("ti,tij,tj->t", heart.f0, sigma_i, heart.f0)
    return sigma_i - np.einsum("t,ti,tj->tij", along, heart.f0, heart.f0)


def _weights(electrodes: Electrodes, leads: Sequence[str]):
    formed, weights = lead_weights(electrodes.names)
    missing = [name for name in leads if name not in formed]
    if missing:
        raise InputError(
            f"the electrodes {', '.join(electrodes.names)} do not form the leads "
            f"{', '.join(missing)}: give those electrodes, or leave the leads out."
        )
    return tuple(leads), weights[[formed.index(name) for name in leads]]


def _conduction(twin: Twin, free: Parameters, places):
    """The eikonal problem with rows of velocities, and what sets them."""
    heart = twin.heart
    own_rows = "cv_field" in free
    problem = build_eikonal(heart, twin.conductivity, purkinje=twin.purkinje)
    base, tags = np.asarray(problem.velocity, float), np.asarray(problem.tags)
    tree = None
    if twin.purkinje is not None:
        base, tree = base[:-1], jnp.asarray(base[-1])
    base = base[: len(tags)]
    count = np.array([(heart.regions == tag).sum() for tag in tags])
    fast = tags >= FAST_TAG
    usual = base[np.where(fast, 0, count).argmax()]
    row = basis = None
    if own_rows:
        row = np.asarray(problem.rows[0])
        centroids = heart.mesh.points[np.asarray(problem.cells[0])].mean(axis=1)
        problem = by_element(problem)
        basis = field_basis(centroids, places, len(free.labels("cv_field")))
        basis = jnp.where(jnp.asarray(fast[row])[:, None], 0.0, basis)
    scaled = [_tag_row(label, tags) for label in free.labels("cv_scale")]
    conduction = Conduction(
        base=jnp.asarray(base),
        usual=jnp.asarray(usual),
        fast=fast,
        scaled=np.array(scaled, dtype=np.int32),
        row=row,
        basis=basis,
        tree=tree,
    )
    return problem, conduction


def _tag_row(label: str, tags: np.ndarray) -> int:
    if not label.isdigit() or int(label) not in tags:
        raise InputError(
            f"cv_scale[{label}]: no region that conducts has this tag; there are {tags.tolist()}."
        )
    return int(np.flatnonzero(tags == int(label))[0])


def _excitation(twin: Twin, sites: Sequence[StartSite]):
    mesh = twin.heart.mesh
    if twin.purkinje is not None:
        tree = twin.purkinje.tree
        roots = np.asarray(tree.roots) + mesh.n_nodes
        zero = jnp.zeros(len(roots))
        left = [_is_left(mesh, tree.points[root]) for root in np.asarray(tree.roots)]
        names = tuple(f"root {k + 1}" for k in range(len(roots)))
        return Excitation(names, ~np.array(left), zero, zero, zero, (), 0.0, roots)
    if not sites:
        raise ModelError("there is nowhere to start: give sites or a Purkinje tree.")
    right = np.array([site.right for site in sites])
    tissues = by_region(twin.heart, twin.conductivity, "conductivity")
    surfaces = [endocardium(mesh, side) for side in (_LV, _RV)]
    if surfaces[0] is None or (right.any() and surfaces[1] is None):
        raise ModelError("the heart has no endocardium tagged where sites are to lie.")
    charts = tuple(chart_of(s) for s in surfaces if s is not None)
    return Excitation(
        names=tuple(site.name for site in sites),
        right=right,
        ab=jnp.array([float(site.ab) for site in sites]),
        rt=jnp.array([float(site.rt) for site in sites]),
        onset=jnp.array([float(site.onset) for site in sites]),
        charts=charts,
        radius=max(_RADIUS, mean_edge(mesh)),
        over_scar=any(isinstance(t, NonConducting) for t in tissues.values()),
    )


def _is_left(mesh: TetMesh, place) -> bool:
    """Whether a root of the tree belongs to the left ventricle."""
    classes = mesh.point_fields["surf_class"]
    gap = [
        np.linalg.norm(mesh.points[classes == side] - place, axis=1).min(initial=np.inf)
        for side in (_LV, _RV)
    ]
    return bool(gap[0] <= gap[1])


def _gained(free: Parameters, leads: Sequence[str]):
    labels = free.labels("gain.lead")
    unknown = [label for label in labels if label not in leads]
    if unknown:
        raise InputError(
            f"gain.lead is free for {', '.join(unknown)}, but the leads that are fitted are "
            f"{', '.join(leads)}."
        )
    return np.array([leads.index(label) for label in labels], dtype=np.int32)


def _moved(free: Parameters, electrodes: Electrodes):
    labels = {name: free.labels(name) for name in ("electrode.x", "electrode.y", "electrode.z")}
    given = [own for own in labels.values() if own]
    if any(own != given[0] for own in given):
        raise InputError("electrode.x, .y and .z must move the same electrodes.")
    moved = given[0] if given else ()
    unknown = [label for label in moved if label not in electrodes.names]
    if unknown:
        raise InputError(
            f"there are no electrodes {', '.join(unknown)}; there are "
            f"{', '.join(electrodes.names)}."
        )
    return np.array([electrodes.names.index(label) for label in moved], dtype=np.int32)
