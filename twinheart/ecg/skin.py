"""The skin of a torso mesh, places on it, and lead fields that follow an electrode over it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy.body import nearest_on_skin
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.quality import boundary_triangles
from twinheart.types import Array


class SkinPlaces(eqx.Module):
    """Places on a surface.

    Parameters
    ----------
    triangle : (point,) int array
        Triangle of each place.
    weights : (point, 3) array
        Weights of its corners, not negative, with sum 1.
    distance : (point,) array
        How far the place is from the position it was looked for at [mm].
    """

    triangle: Int[np.ndarray, "point"]
    weights: Float[np.ndarray, "point 3"]
    distance: Float[np.ndarray, "point"]


def skin_of(mesh: TetMesh) -> tuple[TriMesh, Int[np.ndarray, "skin_node"]]:
    """Surface of a body, and which of its nodes are those of the surface.

    Parameters
    ----------
    mesh : TetMesh
        The body [mm].

    Returns
    -------
    TriMesh, (skin_node,) int array
        Normals outwards; ``mesh.points[nodes]`` are its points.

    Examples
    --------
    >>> from twinheart.ecg.skin import skin_of
    >>> from twinheart.mesh.generate import slab
    >>> skin, nodes = skin_of(slab((2.0, 2.0, 2.0), 1.0))
    >>> skin.n_triangles, len(nodes)
    (48, 26)
    """
    faces = boundary_triangles(mesh.tets)
    nodes, place = np.unique(faces, return_inverse=True)
    return TriMesh(mesh.points[nodes], place.reshape(-1, 3)), nodes


def skin_places(skin: TriMesh, positions: Float[np.ndarray, "point 3"]) -> SkinPlaces:
    """Nearest places on a surface.

    Parameters
    ----------
    skin : TriMesh
        Surface [mm].
    positions : (point, 3) array
        A few positions: each is compared with every triangle.

    Returns
    -------
    SkinPlaces
        One for each position.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg.skin import skin_places
    >>> from twinheart.mesh import TriMesh
    >>> flat = TriMesh([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]], [[0, 1, 2]])
    >>> places = skin_places(flat, np.array([[1.0, 1.0, 5.0]]))
    >>> places.weights, places.distance
    (array([[0.5 , 0.25, 0.25]]), array([5.]))
    """
    positions = np.asarray(positions, dtype=float)
    feet = nearest_on_skin(skin, positions)
    corner = skin.points[skin.triangles]
    a, b = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    normal = np.cross(a, b)
    square = np.maximum(np.einsum("ti,ti->t", normal, normal), 1e-300)
    triangle, weights = np.zeros(len(feet), dtype=np.int64), np.zeros((len(feet), 3))
    for k, foot in enumerate(feet):
        offset = foot - corner[:, 0]
        u = np.einsum("ti,ti->t", np.cross(offset, b), normal) / square
        v = np.einsum("ti,ti->t", np.cross(a, offset), normal) / square
        share = np.stack([1 - u - v, u, v], axis=1).clip(0.0, 1.0)
        share /= share.sum(axis=1, keepdims=True)
        off = np.einsum("tk,tki->ti", share, corner) - foot
        triangle[k] = np.einsum("ti,ti->t", off, off).argmin()
        weights[k] = share[triangle[k]]
    return SkinPlaces(triangle, weights, np.linalg.norm(feet - positions, axis=1))


class SkinField(eqx.Module):
    """Lead fields of the nodes of a piece of skin; differentiable in where an electrode is.

    On linear elements the potential on the skin is linear in every triangle, so the weights of an
    electrode anywhere are those of three nodes, interpolated: exactly what a solve for that place
    on the same mesh would give. The derivative is constant in a triangle and jumps between them.

    Parameters
    ----------
    points : (site, 3) array
        Nodes [mm].
    triangles : (triangle, 3) int array
        Triangles between them.
    weights : (site, node) array
        ``vm @ weights.T`` is the potential at each of them [mV].
    """

    points: Float[Array, "site 3"]
    triangles: Int[Array, "triangle 3"]
    weights: Float[Array, "site node"]

    def shares(self, positions: Float[Array, "electrode 3"]) -> Float[Array, "electrode site"]:
        """Shares of the sites in electrodes at these positions [mm], put onto the skin."""
        corner = jnp.asarray(self.points)[jnp.asarray(self.triangles)]

        def one(position):
            frozen = jax.lax.stop_gradient(position)
            inside = _barycentric(corner, frozen).clip(0.0, 1.0)
            inside = inside / inside.sum(axis=1, keepdims=True)
            off = jnp.einsum("tk,tki->ti", inside, corner) - frozen
            nearest = (off**2).sum(axis=1).argmin()
            share = _barycentric(corner[nearest][None], position)[0]
            row = jnp.zeros(len(self.points), share.dtype)
            return row.at[jnp.asarray(self.triangles)[nearest]].add(share)

        return jax.vmap(one)(jnp.asarray(positions))

    def weights_at(self, positions: Float[Array, "electrode 3"]) -> Float[Array, "electrode node"]:
        """Weights of the heart's nodes for electrodes at these positions [mm]."""
        return self.shares(positions) @ self.weights

    def potentials(
        self, vm: Float[Array, "time node"], positions: Float[Array, "electrode 3"]
    ) -> Float[Array, "time electrode"]:
        """Potentials [mV] of voltages [mV] at electrodes at these positions [mm]."""
        return (vm @ jnp.asarray(self.weights).T) @ self.shares(positions).T


def _barycentric(corner, position):
    """Barycentric coordinates of the foot of a position in the plane of each triangle."""
    a, b = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    normal = jnp.cross(a, b)
    offset = position - corner[:, 0]
    square = (normal**2).sum(axis=1)
    u = (jnp.cross(offset, b) * normal).sum(axis=1) / square
    v = (jnp.cross(a, offset) * normal).sum(axis=1) / square
    return jnp.stack([1 - u - v, u, v], axis=1)
