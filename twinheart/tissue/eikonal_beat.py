"""A beat by the eikonal equation and template action potentials, differentiable throughout."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.errors import InputError, ModelError
from twinheart.mesh.quality import mean_edge
from twinheart.tissue.conductivity import Conduction
from twinheart.tissue.eikonal import Eikonal, build_eikonal
from twinheart.tissue.excitation import Sources, sources_of
from twinheart.tissue.purkinje import ConductionSystem
from twinheart.tissue.stimulus import Stimulus
from twinheart.tissue.template import Templates, templates_of
from twinheart.tissue.wave_ecg import WaveEcg, wave_ecg
from twinheart.types import Array


class EikonalBeat(eqx.Module):
    """A beat by the eikonal equation, as a differentiable function of what it depends on.

    Derivatives are taken by `problem.velocity` and `problem.delays`, `sources.onsets`, and
    `apd_factor`, with ``eqx.tree_at``.

    Attributes
    ----------
    problem : Eikonal
        Geometry and velocities.
    sources : Sources
        Where waves start, and when.
    templates : Templates
        Action potentials.
    apd_factor : (node,) array
        Factor on the APD of every node, on top of that of its cell.
    ecg : WaveEcg or None
        Lead field and times; None without electrodes.
    """

    problem: Eikonal
    sources: Sources
    templates: Templates
    apd_factor: Float[Array, "node"]
    ecg: WaveEcg | None

    def lat(self) -> Float[Array, "every_node"]:
        """Arrival at the nodes of the mesh, then of the Purkinje tree [ms]; inf: never."""
        return self.sources.arrivals(self.problem)[0]

    def potentials(self, lat: Float[Array, "every_node"] | None = None):
        """Potentials at the electrodes [mV], (time, electrode), at the times ``ecg.t``."""
        if self.ecg is None:
            raise ModelError("a beat without electrodes has no potentials: give the twin some.")
        lat = self.lat() if lat is None else lat
        return self.ecg(lat[: self.problem.n_mesh], self.apd_factor)


def build_eikonal_beat(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    conduction: Conduction | dict[int, Conduction],
    stimuli: Sequence[Stimulus],
    *,
    t: Float[np.ndarray, "time"],
    purkinje: ConductionSystem | None = None,
    shares: Float[np.ndarray, "electrode tet 4"] | None = None,
    threshold: float = 0.0,
    dtype=np.float32,
) -> EikonalBeat:
    """Set up a beat; `twinheart.eikonal_beat` does it for a twin.

    Parameters
    ----------
    heart : Heart
        Mesh [mm], fibres, regions.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        Cells of the templates.
    conduction : Velocities, Conductivities, NonConducting or dict of int to these
        Tissue.
    stimuli : sequence of Stimulus
        Pulses of one beat.
    t : (time,) array
        Times of the ECG [ms], equally spaced by a multiple of 1/8 ms.
    purkinje : ConductionSystem, optional
        Tree.
    shares : (electrode, tet, 4) array, optional
        Lead field by element, see `twinheart.ecg.lead_shares`.
    threshold : float
        Activation threshold [mV].
    dtype : dtype
        Precision of the potentials.

    Returns
    -------
    EikonalBeat
        Ready to be evaluated, differentiated and changed.

    Raises
    ------
    InputError
        If the stimuli make more than one beat.
    ModelError
        If they do not fit the heart, or cells have no template.
    """
    sources = sources_of(heart, cell, stimuli, purkinje, float(t[-1]), threshold=threshold)
    if len(sources.onsets) > 1:
        raise InputError(
            f"the stimuli make {len(sources.onsets)} beats, but propagation 'eikonal' computes "
            "one: shorten t_end, or take 'reaction-eikonal' or 'monodomain'."
        )
    problem = build_eikonal(heart, conduction, purkinje=purkinje)
    templates = templates_of(heart, cell, threshold=threshold)
    ecg = None
    if shares is not None:
        crossing = mean_edge(heart.mesh) / float(problem.velocity.min())
        ecg = wave_ecg(heart.mesh.tets, shares, templates, t, crossing=crossing, dtype=dtype)
    return EikonalBeat(problem, sources, templates, jnp.ones(heart.mesh.n_nodes), ecg)
