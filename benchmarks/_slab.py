"""The Niederer slab with a wanted number of nodes, and times at its nine points, node or not."""

import numpy as np

from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.tissue.niederer import POINTS, SIZE


def slab_of(nodes: int) -> TetMesh:
    """The slab with about this many nodes."""
    edge = float((np.prod(SIZE) / nodes) ** (1 / 3))
    return slab(tuple(edge * max(2, round(side / edge)) for side in SIZE), edge)


def point_weights(mesh: TetMesh) -> list[tuple[np.ndarray, np.ndarray]]:
    """Nodes and P1 weights of the nine points (in order): four nodes, or one that lies there."""
    found = []
    for point in POINTS.values():
        distance = np.linalg.norm(mesh.points - point, axis=1)
        if distance.min() < 1e-6:
            found.append((np.array([distance.argmin()]), np.ones(1)))
            continue
        close = mesh.tets[(distance[mesh.tets] < 4.0 * distance.min()).all(axis=1)]
        edges = mesh.points[close[:, 1:]] - mesh.points[close[:, :1]]
        offset = np.asarray(point) - mesh.points[close[:, 0]]
        local = np.linalg.solve(edges.transpose(0, 2, 1), offset[..., None])[..., 0]
        weights = np.concatenate([1.0 - local.sum(axis=1, keepdims=True), local], axis=1)
        best = weights.min(axis=1).argmax()
        found.append((close[best], weights[best]))
    return found


def lat_at_points(mesh: TetMesh, lat: np.ndarray) -> dict[str, float | None]:
    """Activation times at the nine points from those of the nodes [ms]; None where one is NaN."""
    found: dict[str, float | None] = {}
    for name, (nodes, weights) in zip(POINTS, point_weights(mesh), strict=True):
        used = weights > 1e-9
        value = float(weights[used] @ lat[nodes[used]])
        found[name] = None if np.isnan(value) else round(value, 4)
    return found
