r"""Conductivities of the tissue: literature sets, the monodomain tensor, regions.

The monodomain equation is
:math:`\chi (C_m \partial_t V + i_{ion}) = \nabla \cdot \sigma_m \nabla V`; with currents in A/F it
reads :math:`\partial_t V = \nabla \cdot D \nabla V - i_{ion}`, :math:`D = \sigma_m / (\chi C_m)`.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.errors import ModelError
from twinheart.types import Array


def _scalar(value) -> Array:
    return jnp.asarray(value, dtype=float)


class Conductivities(eqx.Module):
    """Intra- and extracellular conductivities of one tissue.

    Parameters
    ----------
    sigma_il, sigma_it, sigma_el, sigma_et : float
        Along and across the fibres [S/m = mS/mm].
    sigma_in, sigma_en : float, optional
        Across the sheets [S/m]; default: as across the fibres.
    chi : float
        Membrane surface to volume [1/mm].
    cm : float
        Membrane capacitance [uF/mm^2].

    Raises
    ------
    ModelError
        If a value is not positive and finite.

    Examples
    --------
    >>> from twinheart.tissue import NIEDERER_2011
    >>> [round(float(d), 4) for d in NIEDERER_2011.diffusivity]
    [0.0953, 0.0126, 0.0126]
    """

    sigma_il: Array
    sigma_it: Array
    sigma_el: Array
    sigma_et: Array
    sigma_in: Array
    sigma_en: Array
    chi: Array
    cm: Array

    def __init__(
        self,
        sigma_il,
        sigma_it,
        sigma_el,
        sigma_et,
        *,
        sigma_in=None,
        sigma_en=None,
        chi=140.0,
        cm=0.01,
    ):
        self.sigma_il, self.sigma_it = _scalar(sigma_il), _scalar(sigma_it)
        self.sigma_el, self.sigma_et = _scalar(sigma_el), _scalar(sigma_et)
        self.sigma_in = _scalar(sigma_it if sigma_in is None else sigma_in)
        self.sigma_en = _scalar(sigma_et if sigma_en is None else sigma_en)
        self.chi, self.cm = _scalar(chi), _scalar(cm)

    def __check_init__(self):
        for name, value in vars(self).items():
            check_positive(name, value)

    @property
    def sigma_i(self) -> Float[Array, "3"]:
        """Intracellular conductivities along fibre, sheet and normal [S/m]."""
        return jnp.stack([self.sigma_il, self.sigma_it, self.sigma_in])

    @property
    def sigma_e(self) -> Float[Array, "3"]:
        """Extracellular conductivities along fibre, sheet and normal [S/m]."""
        return jnp.stack([self.sigma_el, self.sigma_et, self.sigma_en])

    @property
    def sigma_m(self) -> Float[Array, "3"]:
        r"""Monodomain conductivities, :math:`\sigma_i \sigma_e / (\sigma_i + \sigma_e)` [S/m]."""
        return self.sigma_i * self.sigma_e / (self.sigma_i + self.sigma_e)

    @property
    def diffusivity(self) -> Float[Array, "3"]:
        """Monodomain diffusivities along fibre, sheet and normal [mm^2/ms]."""
        return self.sigma_m / (self.chi * self.cm)


def check_positive(name: str, value) -> None:
    """Refuse a concrete number that is not positive and finite; traced values pass.

    Raises
    ------
    ModelError
        Naming the parameter and its value.
    """
    if isinstance(value, Tracer) or not hasattr(value, "__array__"):
        return  # no number yet (under a JAX transformation) or a placeholder of a PyTree
    number = np.asarray(value)
    if not (np.isfinite(number) & (number > 0)).all():
        raise ModelError(
            f"{name} is {number.min():g}, expected a positive, finite number: check its sign and "
            "unit (conductivities in S/m, chi in 1/mm, cm in uF/mm^2)."
        )


# Niederer et al. 2011, table of the N-version benchmark, doi:10.1098/rsta.2011.0139
NIEDERER_2011 = Conductivities(0.17, 0.019, 0.62, 0.24, chi=140.0, cm=0.01)
# As in the published code of a Purkinje calibration study, github.com/fsahli/purkinje-learning.
PURKINJE_LEARNING_2025 = Conductivities(0.3, 0.03, 0.3, 0.12, chi=80.0, cm=0.01)

NAMED_SETS: dict[str, Conductivities] = {
    "niederer2011": NIEDERER_2011,
    "purkinje-learning2025": PURKINJE_LEARNING_2025,
}


class Velocities(eqx.Module):
    """Conduction velocities that the discrete tissue is tuned to (see `tune_cv`).

    Parameters
    ----------
    cv_l, cv_t : float
        Along and across the fibres [m/s = mm/ms]; the defaults are typical of ventricular
        myocardium.
    cv_n : float, optional
        Across the sheets [m/s]; default `cv_t`.
    physical : Conductivities
        What the lead field and every gradient of V use, whatever the mesh needs to conduct.

    Examples
    --------
    >>> from twinheart.tissue import Velocities
    >>> round(float(Velocities(0.6, 0.3).cv[1]), 3)
    0.3
    """

    cv_l: Array
    cv_t: Array
    cv_n: Array
    physical: Conductivities

    def __init__(self, cv_l=0.6, cv_t=0.3, cv_n=None, *, physical=NIEDERER_2011):
        self.cv_l, self.cv_t = _scalar(cv_l), _scalar(cv_t)
        self.cv_n = _scalar(cv_t if cv_n is None else cv_n)
        self.physical = physical

    def __check_init__(self):
        for name in ("cv_l", "cv_t", "cv_n"):
            check_positive(name, getattr(self, name))

    @property
    def cv(self) -> Float[Array, "3"]:
        """Velocities along fibre, sheet and normal [m/s]."""
        return jnp.stack([self.cv_l, self.cv_t, self.cv_n])


class NonConducting(eqx.Module):
    """Tissue that carries no current, such as the core of a scar: no diffusion, no load.

    Examples
    --------
    >>> from twinheart.tissue import NonConducting
    >>> NonConducting()
    NonConducting()
    """


Conduction = Conductivities | Velocities | NonConducting


def by_region(heart: Heart, given: Any, kind: str) -> dict[int, Any]:
    """One entry for every region tag of the heart.

    Parameters
    ----------
    heart : Heart
        Its region tags decide what is needed.
    given : object or dict of int to object
        One value for all regions, or a value for each tag.
    kind : str
        What is looked up, for the error message.

    Returns
    -------
    dict
        From tag to value, tags ascending.

    Raises
    ------
    ModelError
        If a tag that occurs in the heart is missing from the dictionary.
    """
    tags = [int(tag) for tag in np.unique(heart.regions)]
    if not isinstance(given, dict):
        return {tag: given for tag in tags}
    missing = [tag for tag in tags if tag not in given]
    if missing:
        raise ModelError(
            f"region tags {missing} of the heart have no {kind}; given are "
            f"{sorted(given)}: add an entry for each missing tag."
        )
    return {tag: given[tag] for tag in tags}


def fibre_frame(heart: Heart) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Projectors on fibre, sheet and normal of every tetrahedron, each (tet, 3, 3).

    Without fibres the fibre projector is the identity and the others vanish (isotropic, taking the
    values along the fibre); without sheets, sheet and normal share the plane across the fibre.
    """
    identity = np.broadcast_to(np.eye(3), (heart.mesh.n_tets, 3, 3))
    if heart.f0 is None:
        return identity, np.zeros_like(identity), np.zeros_like(identity)
    along = heart.f0[:, :, None] * heart.f0[:, None, :]
    if heart.s0 is None:
        across = (identity - along) / 2.0
        return along, across, across
    sheet = heart.s0[:, :, None] * heart.s0[:, None, :]
    return along, sheet, identity - along - sheet


def region_tensor(heart: Heart, values: dict[int, np.ndarray]) -> Float[np.ndarray, "tet 3 3"]:
    """Tensor of every tetrahedron from its region's values along fibre, sheet and normal.

    Parameters
    ----------
    heart : Heart
        Fibres and regions.
    values : dict of int to (3,) array
        Principal values of each region tag, in any unit; without sheets the two across are
        averaged.

    Returns
    -------
    (tet, 3, 3) array
        Symmetric tensors in the same unit.
    """
    tensor = np.zeros((heart.mesh.n_tets, 3, 3))
    frame = fibre_frame(heart)
    for tag, principal in values.items():
        inside = heart.regions == tag
        for projector, value in zip(frame, np.asarray(principal, dtype=float), strict=True):
            tensor[inside] += value * projector[inside]
    return tensor
