"""Make the demo heart: `python meshes/make_demo_heart.py` writes demo_heart.vtu and its checksum.

`--fine` makes the 1 mm heart instead (about 30 MB, not stored with the project).
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np

from twinheart.anatomy.demo import DEMO_EDGE, make_demo_mesh
from twinheart.errors import MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.io import write_mesh
from twinheart.mesh.quality import boundary_triangles, components, dihedral_angles, edges, volumes

HERE = Path(__file__).parent
FINE_EDGE = 1.0


def main() -> None:
    """Make the mesh, check it, write it and its SHA-256 sum, and print its measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fine", action="store_true", help="1 mm instead of 2 mm edges")
    parser.add_argument("--out", type=Path, help="file to write; beside this script")
    options = parser.parse_args()
    name = "demo_heart_1mm.vtu" if options.fine else "demo_heart.vtu"
    path = options.out or HERE / name
    mesh = make_demo_mesh(FINE_EDGE if options.fine else DEMO_EDGE)
    check(mesh)
    write_mesh(path, mesh)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    Path(f"{path}.sha256").write_text(f"{digest}  {path.name}\n", encoding="ascii")
    angles = dihedral_angles(mesh.points, mesh.tets)
    print(
        f"{path}: {mesh.n_nodes} nodes, {mesh.n_tets} tetrahedra, "
        f"{volumes(mesh.points, mesh.tets).sum() / 1000:.1f} ml, "
        f"dihedral angles from {angles.min():.1f} degrees, sha256 {digest[:12]}..."
    )


def check(mesh: TetMesh) -> None:
    """Refuse a heart with loose parts, holes in a wall, or a wall one tetrahedron thick."""
    if components(mesh.tets, mesh.n_nodes).max() > 0:
        raise MeshError("the demo heart has more than one component, expected one.")
    triangles = boundary_triangles(mesh.tets)
    sides = edges(triangles)
    euler = len(np.unique(triangles)) - len(sides) + len(triangles)
    if euler != 2 or 2 * len(sides) != 3 * len(triangles):
        raise MeshError(
            f"the demo heart's surface has Euler number {euler}, expected 2 (a ball with two "
            "dents): a wall has a hole; take a shorter edge."
        )
    classes = np.sort(mesh.point_fields["surf_class"][edges(mesh.tets)], axis=1)
    across = (classes[:, 0] != classes[:, 1]) & (classes[:, 0] >= 2)
    if across.any():
        raise MeshError(
            f"{across.sum()} edges of the demo heart cross a wall, expected at least two "
            "tetrahedra between its surfaces: take a shorter edge."
        )


if __name__ == "__main__":
    main()
