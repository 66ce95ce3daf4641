r"""A heart, where it is paced, the catheter; and what lesions do to the circuits of its scar.

After lesions the heart is paced from all sites anew and screened (`screen_circuits`). Lesions are
walls, as core is: healthy tissue beside them counts as border zone, so that a strand between a
lesion and scar, or between two lesions with a gap, is looked at as an isthmus like any other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy.spatial import KDTree

from twinheart.anatomy.corridors import MIN_AREA
from twinheart.imaging.enhancement import BORDER
from twinheart.mesh import TetMesh
from twinheart.planning.ablation.isolation import Isolation, isolation
from twinheart.planning.ablation.lesions import Ablation, Lesion, ablate_tissue
from twinheart.planning.ablation.reach import Catheter, Reach
from twinheart.planning.circuits.search import Circuit, possible_circuits
from twinheart.planning.pacing_sites import PacingSite, place_sites
from twinheart.planning.substrate import Substrate, substrate_with
from twinheart.tissue import NonConducting

_BESIDE = 3.0  # mm from a lesion within which healthy tissue is looked at as border zone
_KNOWN = 0.5  # share of an isthmus that was one before: the circuit is not new


class Outcome(NamedTuple):
    """What lesions do.

    Attributes
    ----------
    lesions : tuple of Lesion
        The lesions.
    ablation : Ablation
        What they burn.
    volume_ml : float
        Of tissue that conducted before and is burnt.
    circuits : tuple of Circuit
        That are left.
    new : tuple of bool
        For each of these whether its isthmus was none of a circuit before ablation.
    isolation : Isolation
        What is cut off.
    unsustained : tuple of Circuit
        That refractoriness does not let last.
    """

    lesions: tuple[Lesion, ...]
    ablation: Ablation
    volume_ml: float
    circuits: tuple[Circuit, ...]
    new: tuple[bool, ...]
    isolation: Isolation
    unsustained: tuple[Circuit, ...]


class Operation:
    """A substrate, the sites from which it is paced, and the catheter.

    Parameters
    ----------
    substrate : Substrate
        Before ablation.
    sites : sequence of PacingSite
        Where it is paced, before and after.
    catheter : Catheter
        How lesions are made.
    min_area : float
        Least area of a mouth of an isthmus [mm2]; thin sheets need less than hearts.

    Attributes
    ----------
    reach : Reach
        What the catheter can burn.
    before : Outcome
        Without lesions.

    Examples
    --------
    See `twinheart.planning.ablation.plan.plan_ablation`.
    """

    def __init__(
        self,
        substrate: Substrate,
        sites: Sequence[PacingSite],
        catheter: Catheter | None = None,
        *,
        min_area: float = MIN_AREA,
    ):
        self.substrate, self.sites, self.min_area = substrate, tuple(sites), min_area
        heart = substrate.heart
        dead = [
            t for t, tissue in substrate.conduction.items() if isinstance(tissue, NonConducting)
        ]
        living = ~np.isin(heart.regions, dead)
        self.reach = Reach(heart.mesh, living, Catheter() if catheter is None else catheter)
        self.before = self.after(())

    def after(self, lesions: Sequence[Lesion]) -> Outcome:
        """Screen the heart with lesions.

        Parameters
        ----------
        lesions : sequence of Lesion
            All lesions of a plan.

        Returns
        -------
        Outcome
            What is left, new and lost.

        Raises
        ------
        InputError
            If a lesion lies outside the heart or is too small for the mesh.
        """
        mesh, reach = self.substrate.heart.mesh, self.reach
        ablation = ablate_tissue(mesh, lesions)
        burnt = ablation.number > 0
        found = self._circuits(ablation, burnt)
        circuits = tuple(circuit for circuit in found if circuit.sustained)
        return Outcome(
            tuple(lesions),
            ablation,
            float(reach.volume[burnt & reach.living].sum()) / 1000.0,
            circuits,
            tuple(self.is_new(circuit) for circuit in circuits) if len(lesions) else (),
            isolation(mesh, ablation),
            tuple(circuit for circuit in found if not circuit.sustained),
        )

    def substrate_after(self, lesions: Ablation | Sequence[Lesion]) -> Substrate:
        """The substrate with lesions."""
        return substrate_with(self.substrate, lesions)

    def sites_after(self, substrate: Substrate) -> tuple[PacingSite, ...]:
        """The sites, those on what is burnt moved to the nearest tissue that conducts."""
        return place_sites(
            substrate.problem,
            [site.position for site in self.sites],
            [site.name for site in self.sites],
            furthest=np.inf,
        )

    def _circuits(self, ablation: Ablation, burnt: Bool[np.ndarray, "tet"]) -> tuple[Circuit, ...]:
        mesh, living = self.substrate.heart.mesh, self.reach.living & ~(ablation.number > 0)
        scar = mesh.cell_fields.get("scar", np.zeros(mesh.n_tets, dtype=np.int32))
        if burnt.any():
            near = KDTree(self.reach.centres[burnt]).query(self.reach.centres)[0] <= _BESIDE
            scar = np.where(near & living & (scar == 0), BORDER, scar).astype(np.int32)
        if not (scar[living] == BORDER).any():
            return ()
        substrate = self.substrate_after(ablation) if burnt.any() else self.substrate
        marked = TetMesh(mesh.points, mesh.tets, mesh.point_fields, {"scar": scar})
        return tuple(
            possible_circuits(
                substrate.problem,
                marked,
                self.sites_after(substrate),
                substrate.restitution,
                min_area=self.min_area,
            )
        )

    def is_new(self, circuit: Circuit) -> bool:
        """Whether the isthmus of a circuit was none of a circuit before ablation."""
        own = circuit.isthmus_tets
        return all(
            np.isin(own, other.isthmus_tets).mean() < _KNOWN for other in self.before.circuits
        )
