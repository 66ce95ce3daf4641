r"""The conduction system in the tissue: one-dimensional strands, coupled to the muscle both ways.

The nodes of a Purkinje tree join those of the muscle in the same equation and the same time loop.
Along a strand of cross-section A the diffusion is that of a cable, with edge weights
:math:`A D / \ell`; D is tuned so that the strand conducts at the wanted velocity, as it is in the
muscle. At a junction current flows through a resistance R between the end of a strand and the
muscle around it,

.. math:: I = (V_{strand} - V_{muscle}) / R,

which charges the muscle in some milliseconds, and the strand when the muscle is excited first. Both
directions use the same weight, so the operator stays symmetric and gradients hold. A junction of
the model stands for all those of a few square millimetres: its resistance is that of many in
parallel.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from twinheart.anatomy import Heart
from twinheart.anatomy.endocardium import endocardial_layer
from twinheart.anatomy.purkinje import PurkinjeTree
from twinheart.cell import AbstractCellModel
from twinheart.errors import ModelError
from twinheart.tissue.cable import lattice_spacing
from twinheart.tissue.conductivity import (
    Conduction,
    NonConducting,
    Velocities,
    by_region,
    check_positive,
)
from twinheart.tissue.discrete import Strands
from twinheart.types import Array

# Capacitance of a volume of tissue [uF/mm^3]: chi cm of Niederer et al. 2011.
_CAPACITY = 140.0 * 0.01
# A junction reaches the muscle within this distance [mm].
_REACH = 1.0
_FARTHEST = (
    5.0  # mm, beyond an edge of the mesh: farther from the muscle, a tree is another heart's
)
# Added to the region tag in a fast endocardial layer.
FAST_TAG = 100_000
_GOLDEN = (1 + 5**0.5) / 2
_ICOSAHEDRON = np.array(
    [p for a in (-1, 1) for b in (-_GOLDEN, _GOLDEN) for p in ((0, a, b), (a, b, 0), (b, 0, a))]
) / np.hypot(1, _GOLDEN)  # fmt: skip


def _scalar(value) -> Array:
    return jnp.asarray(value, dtype=float)


class ConductionSystem(eqx.Module):
    """A Purkinje tree and its physiology.

    Parameters
    ----------
    tree : PurkinjeTree
        Anatomy [mm].
    cell : AbstractCellModel, optional
        Cell model of the tree; default: that of the muscle.
    cv : float
        Conduction velocity [m/s]. Default 2.2: canine Purkinje fibres, Maguy et al. 2009
        (doi:10.1161/CIRCRESAHA.108.191809).
    resistance : float
        Of a junction [kOhm]. With the default, measured on a slab with 1 mm edges, the muscle
        follows the strand after 3.5 ms (optical maps of rabbit junctions: 3.4 +- 0.8 ms,
        doi:10.3389/fcvm.2023.1158480) and the strand the muscle after 0.6 ms; from about 1.7 kOhm
        on the muscle is not reached any more.
    area : float
        Cross-section of a strand [mm^2]: how much current a junction can draw. Below about
        1 mm^2 it does not excite the muscle.

    Raises
    ------
    ModelError
        If a number is not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.purkinje import PurkinjeTree
    >>> from twinheart.tissue import ConductionSystem
    >>> tree = PurkinjeTree(np.eye(3), np.array([[0, 1], [1, 2]]), np.array([0]))
    >>> float(ConductionSystem(tree, cv=2.0).cv)
    2.0
    """

    tree: PurkinjeTree
    cell: AbstractCellModel | None
    cv: Float[Array, ""]
    resistance: Float[Array, ""]
    area: Float[Array, ""]

    def __init__(self, tree, cell=None, *, cv=2.2, resistance=0.6, area=2.0):
        self.tree, self.cell = tree, cell
        self.cv, self.resistance, self.area = _scalar(cv), _scalar(resistance), _scalar(area)

    def __check_init__(self):
        for name in ("cv", "resistance", "area"):
            check_positive(name, getattr(self, name))

    @property
    def junction(self) -> Array:
        """Conductance of a junction over the capacitance of a volume of tissue [mm^3/ms]."""
        return 1.0 / (self.resistance * _CAPACITY)


def strands_of(heart: Heart, system: ConductionSystem) -> Strands:
    """The conduction system as links between nodes.

    The muscle that a junction reaches is sampled by its own place and twelve points around it, and
    each goes to the nearest node: on a fine mesh a junction spreads over a dozen nodes, on a coarse
    one it holds to one or two, and the muscle it has to charge stays about the same.

    Parameters
    ----------
    heart : Heart
        Muscle.
    system : ConductionSystem
        Tree and cross-section.

    Returns
    -------
    Strands
        For `twinheart.tissue.discrete.assemble`.

    Raises
    ------
    ModelError
        If the tree does not lie in the heart.
    """
    tree, area, mesh = system.tree, float(system.area), heart.mesh
    ends = tree.junctions
    nodes = KDTree(mesh.points)
    gap, nearest = nodes.query(tree.points[ends])
    far = gap > _FARTHEST + lattice_spacing(mesh)
    if far.any():
        place = ", ".join(f"{x:.1f}" for x in tree.points[ends[far][0]])
        raise ModelError(
            f"{far.sum()} of {len(ends)} ends of the Purkinje tree lie up to {gap.max():.1f} mm "
            f"away from the muscle (first: at {place} mm): it belongs to another heart, or its "
            "unit is not mm."
        )
    samples = mesh.points[nearest][:, None] + _REACH * np.vstack([np.zeros(3), _ICOSAHEDRON])
    _, reached = nodes.query(samples)
    n_samples = samples.shape[1]
    pairs = np.stack([np.repeat(ends + mesh.n_nodes, n_samples), reached.ravel()], axis=1)
    pairs, count = np.unique(pairs, axis=0, return_counts=True)
    lengths = tree.lengths
    half = np.repeat(area * lengths / 2.0, 2)
    is_junction = np.arange(len(lengths) + len(pairs)) >= len(lengths)
    return Strands(
        points=tree.points,
        links=np.concatenate([tree.edges + mesh.n_nodes, pairs]),
        is_junction=is_junction,
        geometry=np.concatenate([area / lengths, count / n_samples]),
        mass=np.where(is_junction, 0.0, np.append(lengths, np.zeros(len(pairs))) * area / 6.0),
        lumped=np.bincount(tree.edges.ravel(), half, tree.n_nodes),
    )


def fast_endocardium(
    heart: Heart,
    cells: AbstractCellModel | dict[int, AbstractCellModel],
    conduction: Conduction | dict[int, Conduction],
    *,
    cv: float = 1.5,
    below: float = 0.9,
) -> tuple[Heart, dict[int, AbstractCellModel], dict[int, Conduction]]:
    """Let a layer of the endocardium conduct fast in all directions: a smeared Purkinje network.

    The layer is made of the tetrahedra that touch the endocardium below the base. They get region
    tags of their own, `FAST_TAG` higher. The slow muscle beneath is a load, so that waves in the
    layer run slower than `cv`.

    Parameters
    ----------
    heart : Heart
        Ventricles with tagged surfaces, see `twinheart.anatomy.endocardium`.
    cells : AbstractCellModel or dict of int to AbstractCellModel
        Cell model, or one for each region tag.
    conduction : Conductivities, Velocities or dict of int to either
        Tissue, or one for each region tag; in the layer it keeps its physical conductivities.
    cv : float
        Velocity of the layer's tissue [m/s]; 1.0-1.9 and 0.7-1.5 are the ranges that Camps et al.
        2024 (arXiv:2401.10029) allow for a dense and a sparse network.
    below : float
        Height `ab` up to which the layer goes.

    Returns
    -------
    heart, cells, conduction
        For `twinheart.Twin`: one entry for each region tag.

    Raises
    ------
    MeshError
        If surfaces are not tagged.
    ModelError
        If the velocity is not positive.

    Examples
    --------
    >>> import twinheart as th
    >>> from twinheart.tissue import Velocities, fast_endocardium
    >>> heart, cells, conduction = th.demo_heart(), th.Twin(th.demo_heart()).cell, Velocities()
    >>> heart, cells, conduction = fast_endocardium(heart, cells, conduction, cv=1.5)
    >>> sorted(conduction), float(conduction[100001].cv_l)
    ([1, 2, 3, 100001, 100002, 100003], 1.5)
    """
    layer = endocardial_layer(heart.mesh, below=below)
    models, tissues = by_region(heart, cells, "cell"), by_region(heart, conduction, "conductivity")
    fast: dict[int, Conduction] = {}
    made: dict[int, Velocities] = {}  # one for tissues that share it, so that it is tuned once
    for tag in np.unique(heart.regions[layer]).tolist():
        tissue = tissues[tag]
        if isinstance(tissue, NonConducting):
            continue
        physical = tissue.physical if isinstance(tissue, Velocities) else tissue
        fast[tag + FAST_TAG] = made.setdefault(id(physical), Velocities(cv, cv, physical=physical))
        models[tag + FAST_TAG] = models[tag]
    living = layer & np.isin(heart.regions + FAST_TAG, list(fast))
    regions = heart.regions + FAST_TAG * living
    return Heart(heart.mesh, heart.f0, heart.s0, regions), models, {**tissues, **fast}
