r"""Fibres of atrial surfaces: those that the mesh carries, else by a rule from landmarks.

Atria are thin; here they are surfaces with one fibre a triangle. Most of their bundles run around
the openings: in the left atrium around the mitral valve and the pulmonary veins, in the right one
around the tricuspid valve and the caval veins (Piersanti et al. 2021,
doi:10.1016/j.cma.2020.113468). The rule takes the harmonic field u that is 0 on the rim of the
valve and 1 on the rims of the veins; fibres follow its level sets,
:math:`f = n \times \nabla u / |\nabla u|`. A bundle that crosses them, such as the terminal crest
of the right atrium, is given as a line of landmarks along which the fibres run.
"""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from twinheart.errors import MeshError
from twinheart.fem import solve_dirichlet
from twinheart.mesh import TriMesh
from twinheart.mesh.directions import mean_directions, unit_vectors
from twinheart.mesh.fields import FIBRE_NAMES, find_vectors


def atrial_fibres(
    surface: TriMesh,
    valve: Float[np.ndarray, "3"],
    veins: Float[np.ndarray, "vein 3"],
    *,
    bundle: Float[np.ndarray, "point 3"] | None = None,
    bundle_width: float = 6.0,
) -> TriMesh:
    """Give every triangle of an atrium a fibre direction.

    Parameters
    ----------
    surface : TriMesh
        Wall of one atrium, open at its valve and veins [mm]. Fibres that it carries are kept.
    valve : (3,) array
        Centre of the valve's opening [mm].
    veins : (vein, 3) array
        Centres of the veins' openings [mm].
    bundle : (point, 3) array or None
        Line of points along a bundle that crosses the rule, such as the terminal crest [mm].
    bundle_width : float
        Its width [mm].

    Returns
    -------
    TriMesh
        With the cell field ``fibre``: unit vectors in the surface.

    Raises
    ------
    MeshError
        If the surface has fewer openings than landmarks, or two landmarks share one.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.atria import atrial_fibres
    >>> from twinheart.mesh import TriMesh
    >>> turns = np.arange(12) * np.pi / 6
    >>> ring = np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)
    >>> k = np.arange(12)
    >>> a, b = np.stack([k, (k + 1) % 12, k + 12], 1), np.stack([(k + 1) % 12, k + 12, k], 1)
    >>> b = np.stack([(k + 1) % 12, (k + 1) % 12 + 12, k + 12], 1)
    >>> tube = TriMesh(np.concatenate([ring, ring + [0, 0, 1]]), np.concatenate([a, b]))
    >>> made = atrial_fibres(tube, np.zeros(3), np.array([[0.0, 0.0, 1.0]]))
    >>> float(abs(made.cell_fields["fibre"][:, 2]).max())
    0.0
    """
    given = find_vectors(surface, FIBRE_NAMES)
    if given is not None:
        return _with_fibres(surface, _given(surface, *given))
    loops = _openings(surface)
    centres = np.concatenate([np.asarray(valve)[None], veins])
    taken = _loops_of(surface, loops, centres)
    nodes = np.concatenate([loops[k] for k in taken])
    values = np.repeat([0.0] + [1.0] * len(veins), [len(loops[k]) for k in taken])
    grad, normal, area = _triangle_gradients(surface)
    u = solve_dirichlet(_surface_stiffness(surface, grad, area), nodes, values)
    slope = np.einsum("tai,ta->ti", grad, u[surface.triangles])
    fibre = np.cross(normal, slope)
    if bundle is not None:
        near, along = _along(surface, np.asarray(bundle), bundle_width)
        fibre[near] = along - np.einsum("ti,ti->t", along, normal[near])[:, None] * normal[near]
    length = np.linalg.norm(fibre, axis=1)
    flat = length < 1e-9 * length.max()
    # between nodes of one rim the field is level: the neighbourhood says how it would go on
    centre = surface.points[surface.triangles].mean(axis=1)
    fibre[flat] = fibre[~flat][KDTree(centre[~flat]).query(centre[flat])[1]]
    return _with_fibres(surface, fibre / np.linalg.norm(fibre, axis=1, keepdims=True))


def _given(surface: TriMesh, where: str, name: str) -> np.ndarray:
    if where == "cell":
        fibre, missing = unit_vectors(surface.cell_fields[name])
    else:
        mean = mean_directions(surface.point_fields[name], surface.triangles)
        fibre, missing = unit_vectors(mean)
    if missing.any():
        raise MeshError(
            f"{int(missing.sum())} of {len(missing)} triangles of the atrium have no fibre in the "
            f"{where} field '{name}': complete it, or remove it to have fibres by the rule."
        )
    return fibre


def _with_fibres(surface: TriMesh, fibre: np.ndarray) -> TriMesh:
    fields = {**surface.cell_fields, "fibre": fibre}
    return TriMesh(surface.points, surface.triangles, surface.point_fields, fields)


def _openings(surface: TriMesh) -> list[Int[np.ndarray, "loop"]]:
    """Nodes of each rim: loops of edges that belong to one triangle only."""
    sides = np.sort(surface.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    pairs, count = np.unique(sides, axis=0, return_counts=True)
    rim = pairs[count == 1]
    nodes, local = np.unique(rim, return_inverse=True)
    local = local.reshape(rim.shape)
    graph = sp.coo_array((np.ones(len(rim)), local.T), shape=(len(nodes),) * 2)
    n_loops, part = sp.csgraph.connected_components(graph, directed=False)
    return [nodes[part == k] for k in range(n_loops)]


def _loops_of(surface: TriMesh, loops, centres: np.ndarray) -> list[int]:
    if len(loops) < len(centres):
        raise MeshError(
            f"the atrium has {len(loops)} openings, but landmarks for {len(centres)}: cut the "
            "surface open at its valve and veins."
        )
    middles = np.stack([surface.points[loop].mean(axis=0) for loop in loops])
    taken = [int(k) for k in np.atleast_1d(KDTree(middles).query(centres)[1])]
    if len(set(taken)) < len(taken):
        raise MeshError("two landmarks of the atrium are nearest to the same opening.")
    return taken


def _triangle_gradients(surface: TriMesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of the corners' functions in the plane of each triangle, its normal and area."""
    corner = surface.points[surface.triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    double = np.linalg.norm(normal, axis=1)
    if not (double > 0).all():
        raise MeshError(f"{int((double == 0).sum())} triangles of the atrium have no area.")
    normal = normal / double[:, None]
    opposite = corner[:, [2, 0, 1]] - corner[:, [1, 2, 0]]
    return np.cross(normal[:, None], opposite) / double[:, None, None], normal, double / 2


def _surface_stiffness(surface: TriMesh, grad: np.ndarray, area: np.ndarray) -> sp.csr_array:
    local = np.einsum("tai,tbi,t->tab", grad, grad, area)
    rows, columns = np.repeat(surface.triangles, 3, axis=1), np.tile(surface.triangles, 3)
    shape = (surface.n_nodes,) * 2
    return sp.coo_array((local.ravel(), (rows.ravel(), columns.ravel())), shape=shape).tocsr()


def _along(surface: TriMesh, line: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Triangles within half a width of a line of points; the line's direction there."""
    centre = surface.points[surface.triangles].mean(axis=1)
    start, step = line[:-1], np.diff(line, axis=0)
    share = np.einsum("tsi,si->ts", centre[:, None] - start, step) / (step**2).sum(axis=1)
    foot = start + np.clip(share, 0.0, 1.0)[..., None] * step
    distance = np.linalg.norm(foot - centre[:, None], axis=2)
    near = np.flatnonzero(distance.min(axis=1) <= width / 2)
    return near, step[distance[near].argmin(axis=1)]
