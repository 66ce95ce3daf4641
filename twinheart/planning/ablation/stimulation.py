"""The last test of a plan of ablation: what programmed stimulation still induces."""

from collections.abc import Callable, Sequence

from twinheart.planning.ablation.operation import Operation, Outcome
from twinheart.planning.induction.many_sites import induce_sites
from twinheart.planning.induction.one_site import SiteResult
from twinheart.planning.induction.protocols import Protocol
from twinheart.planning.induction.tachycardias import Tachycardia, distinct_tachycardias
from twinheart.planning.pacing_sites import PacingSite
from twinheart.planning.substrate import Substrate

# Given a substrate and sites, the tachycardias that are induced from these.
Test = Callable[[Substrate, tuple[PacingSite, ...]], Sequence[Tachycardia]]


def stimulation_test(
    protocol: Protocol,
    *,
    workers: int = 1,
    progress: Callable[[], Callable[[int, int], None]] | None = None,
) -> Test:
    """A test by the re-excitable eikonal equation that remembers what it was asked.

    Parameters
    ----------
    protocol : Protocol
        Of the stimuli.
    workers : int
        Sites at once.
    progress : callable, optional
        Makes, for each test, what is called with the number of sites that are done and of all.

    Returns
    -------
    callable
        Takes a substrate, which must be of one and the same heart each time but for its lesions,
        and sites.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import Protocol, Stage, place_sites
    >>> from twinheart.planning.ablation.stimulation import stimulation_test
    >>> from twinheart.planning.substrate import build_substrate
    >>> from twinheart.tissue import WaveTable
    >>> table = WaveTable([20.0, 300.0], [0.6, 1.0], [180.0, 250.0])
    >>> heart = build_substrate(Heart(slab((20.0, 2.0, 2.0), 1.0)), tables={0: table})
    >>> test = stimulation_test(Protocol("S1 S2", 2, 600.0, (Stage(300.0, 50.0, 200.0),)))
    >>> test(heart, place_sites(heart.problem, [[0.0, 1.0, 1.0]]))
    []
    """
    known: dict[tuple[bytes, PacingSite], SiteResult] = {}

    def induced(substrate: Substrate, sites: Sequence[PacingSite]) -> list[Tachycardia]:
        heart = substrate.heart.regions.tobytes()
        missing = [site for site in sites if (heart, site) not in known]
        results = induce_sites(
            substrate.problem, substrate.restitution, missing, protocol,
            workers=workers, progress=None if progress is None else progress(),
        )  # fmt: skip
        known.update({(heart, result.site): result for result in results})
        found = [known[heart, site] for site in sites]
        return distinct_tachycardias(substrate, found, protocol)

    return induced


class Pacing:
    """Programmed stimulation of a heart with different lesions.

    Parameters
    ----------
    operation : Operation
        Substrate and sites.
    test : callable
        See `Test`.
    log : callable
        Told what was found, and with which lesions.

    Attributes
    ----------
    suspects : set of str
        Sites from which re-entry was ever induced.
    """

    def __init__(self, operation: Operation, test: Test, log: Callable[[str, Outcome], None]):
        self.operation, self.test, self.log = operation, test, log
        self.suspects: set[str] = set()

    def first(self, outcome: Outcome) -> tuple[Tachycardia, ...]:
        """What is induced from suspects, or where that is nothing from the other sites."""
        after = self.operation.substrate_after(outcome.ablation)
        sites = self.operation.sites_after(after)
        for suspect in (True, False):
            some = tuple(site for site in sites if (site.name in self.suspects) is suspect)
            left = self._run(outcome, after, some) if some else ()
            if left:
                return left
        return ()

    def every(self, outcome: Outcome) -> tuple[Tachycardia, ...]:
        """What is induced from any site."""
        after = self.operation.substrate_after(outcome.ablation)
        return self._run(outcome, after, self.operation.sites_after(after))

    def names(self, left: Sequence[Tachycardia]) -> tuple[str, ...]:
        """Sites of some tachycardias, in the order of all sites."""
        found = {name for one in left for name in one.sites}
        return tuple(site.name for site in self.operation.sites if site.name in found)

    def _run(self, outcome: Outcome, after: Substrate, sites) -> tuple[Tachycardia, ...]:
        left = tuple(self.test(after, sites))
        names = self.names(left)
        self.suspects |= set(names)
        said = f"re-entry from {len(names)} of {len(sites)} sites"
        self.log(f"programmed stimulation: {said}", outcome)
        return left
