"""Readers of surface files without connectivity tables of their own: STL and OBJ."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from twinheart.errors import InputError
from twinheart.mesh.core import TriMesh
from twinheart.mesh.io.atomic import written_whole
from twinheart.mesh.io.raw import RawMesh, read_bytes
from twinheart.mesh.io.text import parse_numbers

_STL_RECORD = np.dtype([("normal", "<f4", 3), ("corner", "<f4", (3, 3)), ("color", "<u2")])


def read_stl(path: Path) -> RawMesh:
    """Read an STL surface, text or binary; corners with equal coordinates become one node.

    Raises
    ------
    InputError
        If the file is truncated or damaged.
    """
    data = read_bytes(path)
    n_binary = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    size = 84 + n_binary * _STL_RECORD.itemsize
    if data[:5].lower() == b"solid" and b"facet" in data[:1000] and len(data) != size:
        corners = _text_corners(path, data)
    elif n_binary < 0 or len(data) < size:
        raise InputError(
            f"{path}: a binary STL of {max(n_binary, 0)} triangles has {size} bytes, got "
            f"{len(data)}: the file is truncated or no STL."
        )
    else:
        corners = np.frombuffer(data, _STL_RECORD, n_binary, 84)["corner"].reshape(-1, 3)
    # + 0.0 makes one zero of 0 and -0
    points, index = np.unique(corners.astype(float) + 0.0, axis=0, return_inverse=True)
    return RawMesh(path, "STL", points, {"triangle": index.reshape(-1, 3)})


def _text_corners(path: Path, data: bytes) -> np.ndarray:
    if b"endsolid" not in data:
        raise InputError(f"{path}: does not end with 'endsolid': the file is truncated.")
    lines = [line.split() for line in data.splitlines()]
    rows = [(n, words) for n, words in enumerate(lines, 1) if words[:1] == [b"vertex"]]
    for number, words in rows:
        if len(words) != 4:
            raise InputError(f"{path} line {number}: expected 'vertex x y z'.")
    if len(rows) % 3:
        raise InputError(f"{path}: {len(rows)} vertices make no whole number of triangles.")
    first = rows[0][0] if rows else 1
    text = b"\n".join(b" ".join(words[1:]) for _, words in rows)
    return parse_numbers(path, text, float, first).reshape(-1, 3)


def read_obj(path: Path) -> RawMesh:
    """Read the vertices and faces of a Wavefront OBJ surface; polygons become fans of triangles.

    Texture coordinates, normals, groups and materials describe looks and are left out.

    Raises
    ------
    InputError
        If a line cannot be understood; it names the line.
    """
    points: list[list[float]] = []
    faces: list[list[int]] = []
    skipped = 0
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        words = line.split()
        try:
            if words[:1] == [b"v"]:
                points.append([float(w) for w in words[1:4]])
                if len(points[-1]) != 3:
                    raise ValueError
            elif words[:1] == [b"f"]:
                corners = [int(w.split(b"/")[0]) for w in words[1:]]
                # 1 is the first vertex, -1 the latest
                corners = [c - 1 if c > 0 else c + len(points) for c in corners]
                if len(corners) < 3 or not all(0 <= c < len(points) for c in corners):
                    raise ValueError
                faces += [[corners[0], b, c] for b, c in pairwise(corners[1:])]
            elif words[:1] == [b"l"]:
                skipped += 1
        except ValueError:
            shown = line[:40].decode("latin-1")
            raise InputError(f"{path} line {number}: cannot understand '{shown}'.") from None
    mesh = RawMesh(
        path,
        "OBJ",
        np.array(points, dtype=float).reshape(-1, 3),
        {"triangle": np.array(faces, dtype=np.int64).reshape(-1, 3)},
        index_base=0,
    )
    if skipped:
        mesh.notes.append(f"{skipped} lines were left out: only faces are read")
    return mesh


def write_stl(path: str | Path, mesh: TriMesh) -> None:
    """Write a surface as binary STL [mm], without its fields.

    Raises
    ------
    OutputError
        If the file cannot be written; nothing is left behind.
    """
    records = np.zeros(mesh.n_triangles, _STL_RECORD)
    corner = mesh.points[mesh.triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    records["normal"] = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    records["corner"] = corner
    with written_whole(path) as temporary:
        head = b"twinheart, mm".ljust(80) + mesh.n_triangles.to_bytes(4, "little")
        temporary.write_bytes(head + records.tobytes())
