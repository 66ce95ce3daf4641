"""Distinct tachycardias among what was induced: those that run around the same circuit are one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import KDTree

from twinheart.mesh import TetMesh
from twinheart.planning.circuits.screening import conducting_tets, slowest_waves
from twinheart.planning.induction.morphology import Morphology, classify
from twinheart.planning.induction.one_site import SiteResult, activation_train
from twinheart.planning.induction.protocols import Protocol
from twinheart.planning.places import segment_at
from twinheart.planning.reentry_maps.circuit import SLOWEST, ReentryCircuit, activation_circuit
from twinheart.planning.substrate import Substrate

ALIKE_MM = 10.0  # two ways are one circuit if most of each lies so near to the other
ALIKE_CYCLE = 0.1  # and their cycles differ by at most this share
_MOST = 0.8
_CYCLES = 4  # in which it is judged, after the observation: by then the last stimulus is forgotten
_WAITS = 0.5  # of the velocity of the slowest wave: a front may wait for tissue to recover


class Tachycardia(NamedTuple):
    """A tachycardia.

    Attributes
    ----------
    cycle_length_ms : float
        Median interval between activations.
    morphology : Morphology
        Whether it repeats itself.
    circuit : ReentryCircuit or None
        Its way; None where no closed way was found.
    sites : tuple of str
        From which it was induced, the first of which it was taken from.
    """

    cycle_length_ms: float
    morphology: Morphology
    circuit: ReentryCircuit | None
    sites: tuple[str, ...]


def distinct_tachycardias(
    substrate: Substrate,
    results: Sequence[SiteResult],
    protocol: Protocol,
    *,
    radius: float = 2.0,
) -> list[Tachycardia]:
    """Tachycardias that were induced, each once, in whichever direction it runs.

    Parameters
    ----------
    substrate : Substrate
        What was paced.
    results : sequence of SiteResult
        From `twinheart.planning.induce_sites`.
    protocol : Protocol
        With which they were found.
    radius : float
        Of the ball that a stimulus excites [mm].

    Returns
    -------
    list of Tachycardia
        The shortest cycle first.

    Examples
    --------
    See `twinheart.cli.induce`.
    """
    found: list[Tachycardia] = []
    conducts = conducting_tets(substrate)
    slowest = min(SLOWEST, _WAITS * min(slowest_waves(substrate).values()))
    for result in results:
        if not result.induced:
            continue
        cycle = np.nan if result.cycle_length is None else result.cycle_length
        longer = replace(protocol, observe=protocol.observe + _CYCLES * np.nan_to_num(cycle))
        train = activation_train(
            substrate.problem, substrate.restitution, result, longer, radius=radius
        )
        circuit = activation_circuit(
            substrate.heart.mesh, train, conducts=conducts, slowest=slowest
        )
        one = Tachycardia(
            float(cycle),
            classify(train, result.stimuli[-1] + protocol.observe),
            circuit,
            (result.site.name,),
        )
        same = next((k for k, other in enumerate(found) if _is_one(one, other)), None)
        if same is None:
            found.append(one)
        else:
            found[same] = found[same]._replace(sites=found[same].sites + one.sites)
    return sorted(found, key=lambda tachycardia: tachycardia.cycle_length_ms)


def tachycardia_rows(found: Sequence[Tachycardia], mesh: TetMesh) -> list[dict[str, Any]]:
    """Tachycardias under names that carry their units.

    Parameters
    ----------
    found : sequence of Tachycardia
        From `distinct_tachycardias`.
    mesh : TetMesh
        The heart.

    Returns
    -------
    list of dict
        One row each, numbered from 1; places are None where they are not known.
    """
    rows = []
    for number, one in enumerate(found, start=1):
        way = one.circuit
        places = {
            name: None if way is None or getattr(way, name) is None else getattr(way, name).tolist()
            for name in ("exit_mm", "entrance_mm")
        }
        rows.append(
            {
                "vt": number,
                "cycle_length_ms": one.cycle_length_ms,
                "morphology": one.morphology.kind,
                "variability": one.morphology.variability,
                **places,
                "exit_segment": None
                if places["exit_mm"] is None
                else segment_at(mesh, places["exit_mm"]),
                "length_mm": None if way is None else way.length_mm,
                "sites": list(one.sites),
                "path_mm": None if way is None else way.path.tolist(),
            }
        )
    return rows


def _is_one(one: Tachycardia, other: Tachycardia) -> bool:
    """Whether two tachycardias take the same way in about the same time."""
    longer = max(one.cycle_length_ms, other.cycle_length_ms)
    if not abs(one.cycle_length_ms - other.cycle_length_ms) <= ALIKE_CYCLE * longer:
        return False
    if one.circuit is None or other.circuit is None:
        return one.circuit is other.circuit
    ways = one.circuit.path, other.circuit.path
    return all((KDTree(b).query(a)[0] <= ALIKE_MM).mean() >= _MOST for a, b in (ways, ways[::-1]))
