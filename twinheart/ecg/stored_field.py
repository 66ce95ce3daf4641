"""Lead fields as files: computed once for a heart, its torso and its electrodes, and used again."""

import hashlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.ecg.electrodes import Electrodes
from twinheart.ecg.skin import SkinField
from twinheart.errors import InputError
from twinheart.mesh.io.atomic import written_whole
from twinheart.mesh.io.hdf5 import hdf5_output
from twinheart.mesh.quality import volumes
from twinheart.types import Array

FORMAT, VERSION = "twinheart lead field", 1
# Nodes that moved by more [mm], or tensors that changed by more (relative), are another heart.
_SAME_PLACE, _SAME_TENSOR = 1e-3, 1e-5
_SAME_ELECTRODE = 0.5  # mm
_MOST_NUMBERS = 2_000_000_000  # in one array of a file


class LeadField(eqx.Module):
    """Weights of the heart's nodes at each electrode, and what they were computed for.

    Parameters
    ----------
    weights : (electrode, node) array
        ``potentials = vm @ weights.T`` in mV; every row sums to zero.
    electrodes : Electrodes
        As they were given.
    points : (node, 3) array
        Nodes of the heart [mm].
    tets_digest : str
        SHA-256 of its connectivity.
    tensor_sums : (18,) array
        Sums over its intracellular conductivities, by which they are recognised.
    facts : dict
        Medium, conductivities, sizes: plain values for reports.
    skin : SkinField or None
        Weights at nodes of the skin around the electrodes, for electrodes that move.
    corner_shares : (electrode, tet, 3) array or None
        What the corners of each element but the first add (see `shares`).
    """

    weights: Float[Array, "electrode node"]
    electrodes: Electrodes
    points: Float[np.ndarray, "node 3"]
    tets_digest: str = eqx.field(static=True)
    tensor_sums: Float[np.ndarray, "18"]
    facts: dict[str, Any]
    skin: SkinField | None = None
    corner_shares: Float[Array, "electrode tet 3"] | None = None

    @property
    def shares(self) -> Float[Array, "electrode tet 4"]:
        """What each corner of each element adds, for waves thinner than an element.

        As of `lead_shares`: sums over the corners are zero.

        Raises
        ------
        InputError
            If the lead field was made without them.
        """
        if self.corner_shares is None:
            raise InputError(
                "the lead field has no shares of the elements: compute it anew with "
                "'twinheart leadfield'."
            )
        first = -self.corner_shares.sum(axis=2, keepdims=True)
        return np.concatenate([first, self.corner_shares], axis=2)

    def potentials(self, vm: Float[Array, "time node"]) -> Float[Array, "time electrode"]:
        """Potentials at the electrodes [mV] of transmembrane voltages [mV]."""
        return vm @ self.weights.T

    def check(
        self,
        heart: Heart,
        *,
        sigma_i: Float[np.ndarray, "tet 3 3"] | None = None,
        electrodes: Electrodes | None = None,
    ) -> None:
        """Refuse to be used for something else than it was computed for.

        Parameters
        ----------
        heart : Heart
            Must have the same nodes and tetrahedra.
        sigma_i : (tet, 3, 3) array, optional
            Must be the intracellular conductivities [S/m].
        electrodes : Electrodes, optional
            Each must be there, at the same place.

        Raises
        ------
        InputError
            Saying what does not fit.
        """
        mesh = heart.mesh
        if mesh.points.shape != self.points.shape:
            raise InputError(
                f"the lead field belongs to a heart of {len(self.points)} nodes, this one has "
                f"{mesh.n_nodes}: compute it anew with 'twinheart leadfield'."
            )
        moved = np.abs(mesh.points - self.points).max()
        if moved > _SAME_PLACE or _digest(mesh.tets) != self.tets_digest:
            other = (
                f"nodes differ by up to {moved:.3g} mm" if moved > _SAME_PLACE else "cells differ"
            )
            raise InputError(
                f"the lead field belongs to another heart ({other}): compute it anew with "
                "'twinheart leadfield'."
            )
        if self.corner_shares is not None and self.corner_shares.shape[1] != mesh.n_tets:
            raise InputError("the lead field's shares are not those of this heart's elements.")
        if sigma_i is not None:
            sums = _tensor_sums(heart, sigma_i)
            if np.abs(sums - self.tensor_sums).max() > _SAME_TENSOR * np.abs(sums).max():
                raise InputError(
                    "the lead field was computed with other intracellular conductivities, fibres "
                    "or regions than this heart has: compute it anew with 'twinheart leadfield'."
                )
        for name, position in [] if electrodes is None else _rows(electrodes):
            self._check_electrode(name, position)

    def _check_electrode(self, name: str, position: np.ndarray) -> None:
        if name not in self.electrodes.names:
            raise InputError(
                f"the lead field has no electrode {name}, it has "
                f"{', '.join(self.electrodes.names)}: compute it anew with 'twinheart leadfield'."
            )
        there = self.electrodes.positions[self.electrodes.names.index(name)]
        off = float(np.linalg.norm(there - position))
        if off > _SAME_ELECTRODE:
            raise InputError(
                f"electrode {name} is {off:.1f} mm away from where the lead field has it: compute "
                "it anew with 'twinheart leadfield', or leave the electrodes out."
            )


def make_lead_field(
    weights: Float[np.ndarray, "electrode node"],
    electrodes: Electrodes,
    heart: Heart,
    sigma_i: Float[np.ndarray, "tet 3 3"],
    *,
    facts: dict[str, Any] | None = None,
    skin: SkinField | None = None,
    shares: Float[np.ndarray, "electrode tet 4"] | None = None,
) -> LeadField:
    """Tie weights to the heart, conductivities and electrodes that they were computed for.

    Parameters
    ----------
    weights : (electrode, node) array
        Of `lead_field` or `torso_lead_field`.
    electrodes : Electrodes
        One for each row.
    heart : Heart
        One node for each column.
    sigma_i : (tet, 3, 3) array
        Intracellular conductivities [S/m].
    facts : dict, optional
        Plain values to be kept with it.
    skin : SkinField, optional
        Weights around the electrodes.
    shares : (electrode, tet, 4) array, optional
        The weights element by element, as of `lead_shares`.

    Returns
    -------
    LeadField
        Ready to be written or used.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.ecg import Electrodes, lead_field
    >>> from twinheart.ecg.stored_field import make_lead_field
    >>> from twinheart.mesh.generate import slab
    >>> heart = Heart(slab((4.0, 1.0, 1.0), 0.5))
    >>> sigma_i = np.tile(0.17 * np.eye(3), (heart.mesh.n_tets, 1, 1))
    >>> electrodes = Electrodes(("V1",), [[20.0, 0.5, 0.5]])
    >>> weights = lead_field(heart.mesh, electrodes, sigma_i)
    >>> make_lead_field(weights, electrodes, heart, sigma_i).check(heart, sigma_i=sigma_i)
    """
    mesh = heart.mesh
    sums = _tensor_sums(heart, sigma_i)
    corners = None if shares is None else np.asarray(shares[:, :, 1:], dtype=weights.dtype)
    digest = _digest(mesh.tets)
    return LeadField(weights, electrodes, mesh.points, digest, sums, facts or {}, skin, corners)


def write_lead_field(path: str | Path, field: LeadField) -> Path:
    """Write a lead field to an HDF5 file, whole or not at all.

    Parameters
    ----------
    path : path
        File to write; ``.h5`` by custom.
    field : LeadField
        What to write.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from twinheart import __version__

    arrays = {
        "weights": np.asarray(field.weights),
        "electrodes/positions": field.electrodes.positions,
        "heart/points": field.points,
        "heart/tensor_sums": field.tensor_sums,
    }
    if field.skin is not None:
        arrays["skin/points"] = np.asarray(field.skin.points)
        arrays["skin/triangles"] = np.asarray(field.skin.triangles)
        arrays["skin/weights"] = np.asarray(field.skin.weights)
    if field.corner_shares is not None:
        arrays["corner_shares"] = np.asarray(field.corner_shares)
    words = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"twinheart {__version__}, not for clinical use",
        "electrode_names": json.dumps(field.electrodes.names),
        "tets_sha256": field.tets_digest,
        "facts": json.dumps(field.facts),
    }
    path = Path(path)
    with written_whole(path) as draft, hdf5_output(draft) as (file, disk):
        file.attrs.update(words)
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
            file.flush()
            disk.check()
        file["weights"].attrs["unit"] = "mV/mV"
        file["heart/points"].attrs["unit"] = file["electrodes/positions"].attrs["unit"] = "mm"
    return path


def read_lead_field(
    path: str | Path,
    heart: Heart | None = None,
    *,
    sigma_i: Float[np.ndarray, "tet 3 3"] | None = None,
    electrodes: Electrodes | None = None,
) -> LeadField:
    """Read a lead field, and refuse it if it does not fit.

    Parameters
    ----------
    path : path
        File that `write_lead_field` or ``twinheart leadfield`` wrote.
    heart, sigma_i, electrodes
        What it is to be used for (see `LeadField.check`); nothing is checked without a heart.

    Returns
    -------
    LeadField
        As it was written.

    Raises
    ------
    InputError
        If the file is none of ours, of a later version, damaged, or belongs to something else.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.ecg import Electrodes, lead_field
    >>> from twinheart.ecg.stored_field import *
    >>> from twinheart.mesh.generate import slab
    >>> heart = Heart(slab((4.0, 1.0, 1.0), 0.5))
    >>> sigma_i = np.tile(0.17 * np.eye(3), (heart.mesh.n_tets, 1, 1))
    >>> electrodes = Electrodes(("V1",), [[20.0, 0.5, 0.5]])
    >>> weights = lead_field(heart.mesh, electrodes, sigma_i)
    >>> path = tempfile.mkdtemp() + "/leads.h5"
    >>> _ = write_lead_field(path, make_lead_field(weights, electrodes, heart, sigma_i))
    >>> bool((read_lead_field(path, heart).weights == weights).all())
    True
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no lead field '{path}': make one with 'twinheart leadfield'.")
    try:
        with h5py.File(path, "r") as file:
            field = _read(file)
    except InputError as error:
        raise InputError(f"lead field '{path}': {error}") from None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"lead field '{path}' cannot be read ({' '.join(str(error).split())[:120]}): it is "
            "damaged or no lead field; make it anew with 'twinheart leadfield'."
        ) from None
    if heart is not None:
        try:
            field.check(heart, sigma_i=sigma_i, electrodes=electrodes)
        except InputError as error:
            raise InputError(f"'{path}' does not fit: {error}") from None
    return field


def _read(file: Any) -> LeadField:
    if file.attrs.get("format") != FORMAT:
        raise InputError("this is no lead field of twinheart; make one with 'twinheart leadfield'.")
    version = int(file.attrs["version"])
    if version != VERSION:
        raise InputError(
            f"it has version {version} of the format, this program reads {VERSION}: make it anew."
        )
    names = json.loads(_text(file, "electrode_names"))
    weights, points = _array(file, "weights", 2), _array(file, "heart/points", 2)
    if weights.shape != (len(names), len(points)) or not np.isfinite(weights).all():
        raise InputError(
            f"it has weights of shape {weights.shape} for {len(names)} electrodes and "
            f"{len(points)} nodes, all of them finite numbers: it is damaged."
        )
    skin = None
    if "skin" in file:
        parts = {name: _array(file, f"skin/{name}", 2) for name in ("points", "triangles")}
        at_skin = _array(file, "skin/weights", 2)
        if parts["triangles"].max(initial=0) >= len(at_skin) or parts["triangles"].min() < 0:
            raise InputError("its triangles of the skin point at nodes that are not there.")
        skin = SkinField(parts["points"], parts["triangles"], at_skin)
    corners = _array(file, "corner_shares", 3) if "corner_shares" in file else None
    if corners is not None and (len(corners), corners.shape[2]) != (len(names), 3):
        raise InputError(f"its shares have shape {corners.shape}: it is damaged.")
    return LeadField(
        weights,
        Electrodes(names, _array(file, "electrodes/positions", 2)),
        points,
        _text(file, "tets_sha256"),
        _array(file, "heart/tensor_sums", 1),
        dict(json.loads(_text(file, "facts"))),
        skin,
        corners,
    )


def _array(file: Any, name: str, ndim: int) -> np.ndarray:
    """Numbers that lie in the file itself: what points to other files is refused."""
    import h5py

    found = file[name]
    links = (file.get(part, getlink=True) for part in {name, name.split("/")[0]})
    if (
        not isinstance(found, h5py.Dataset)
        or not all(isinstance(link, h5py.HardLink) for link in links)
        or found.external
        or found.is_virtual
        or found.dtype.kind not in "fi"
        or len(found.shape) != ndim
        or np.prod(found.shape, dtype=float) > _MOST_NUMBERS
    ):
        raise InputError(f"its entry '{name}' is no array of numbers of the expected form.")
    return np.asarray(found[()])


def _text(file: Any, name: str) -> str:
    text = file.attrs[name]
    if not isinstance(text, str) or len(text) > 1_000_000:
        raise InputError(f"its attribute '{name}' is no text.")
    return text


def _rows(electrodes: Electrodes):
    return zip(electrodes.names, electrodes.positions, strict=True)


def _digest(tets: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(tets, dtype="<i4").tobytes()).hexdigest()


def _tensor_sums(heart: Heart, sigma_i: np.ndarray) -> Float[np.ndarray, "18"]:
    """Sums of the six components times volume, plain and with two waves over the cells' numbers."""
    mesh = heart.mesh
    component = np.asarray(sigma_i)[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    amount = component * np.abs(volumes(mesh.points, mesh.tets))[:, None]
    number = np.arange(mesh.n_tets)[:, None]
    waves = (1.0, np.cos(number), np.sin(number))
    return np.concatenate([(wave * amount).sum(axis=0) for wave in waves])
