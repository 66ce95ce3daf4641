"""Stimulation protocols by which re-entry is provoked, as data, with where their numbers are from.

A protocol paces a site regularly (S1) and then goes through its stages. A stage adds stimuli at an
interval that is shortened step by step until the tissue does not respond any more or re-entry is
induced; the next stage starts from the shortest interval that still was captured. Programmed
stimulation has one stage with one stimulus for each of S2, S3 and S4; burst pacing is one stage
with many stimuli; pacing at the end of the effective refractory period has stages that each find
the earliest stimulus.
"""

from dataclasses import dataclass

import numpy as np

from twinheart.errors import InputError

_MOST_STIMULI = 1000


@dataclass(frozen=True)
class Stage:
    """Stimuli added at intervals that are shortened step by step.

    Parameters
    ----------
    start : float
        First interval to try [ms].
    step : float
        By which it is shortened [ms]; 0: `start` only.
    least : float, optional
        Shortest interval to try [ms]; by default `start`.
    count : int
        Stimuli at this interval: 1 for an extrastimulus, more for a burst.

    Raises
    ------
    InputError
        If a number is not usable.

    Examples
    --------
    >>> from twinheart.planning import Stage
    >>> Stage(300.0, step=20.0, least=250.0).intervals
    (300.0, 280.0, 260.0)
    """

    start: float
    step: float = 0.0
    least: float | None = None
    count: int = 1

    def __post_init__(self):
        least = self.start if self.least is None else self.least
        object.__setattr__(self, "least", least)
        if not (np.isfinite([self.start, self.step, least]).all() and 0 < least <= self.start):
            raise InputError(
                f"a stage runs from {self.start} to {least} ms, expected positive numbers, the "
                "second not above the first."
            )
        if self.step < 0 or (self.step == 0 and least < self.start):
            raise InputError(
                f"a stage from {self.start} to {least} ms has a step of {self.step} ms: give a "
                "positive step by which its interval is shortened."
            )
        if not 1 <= self.count <= _MOST_STIMULI:
            raise InputError(f"a stage has {self.count} stimuli, expected 1 to {_MOST_STIMULI}.")

    @property
    def intervals(self) -> tuple[float, ...]:
        """All intervals [ms], the longest first."""
        if self.step == 0 or self.least is None:
            return (self.start,)
        steps = int(np.floor((self.start - self.least) / self.step + 1e-9))
        return tuple(self.start - k * self.step for k in range(steps + 1))


@dataclass(frozen=True)
class Earliest:
    """A stimulus as early as a wave leaves the site, found by bisection.

    The first interval tried is around the repolarisation of the site after the stimulus before.

    Parameters
    ----------
    window : float
        Width of the bracket [ms]; where even its upper end is not conducted it moves by half.
    least : float
        Shortest interval to try [ms].
    resolution : float
        To which the interval is found [ms].

    Raises
    ------
    InputError
        If a number is not positive.

    Examples
    --------
    >>> from twinheart.planning.induction.protocols import Earliest
    >>> Earliest().window
    80.0
    """

    window: float = 80.0
    least: float = 60.0
    resolution: float = 1.0

    def __post_init__(self):
        numbers = (self.window, self.least, self.resolution)
        if not (np.isfinite(numbers).all() and min(numbers) > 0):
            raise InputError(
                f"the earliest stimulus is sought in {self.window} ms, from {self.least} ms on, to "
                f"{self.resolution} ms: expected positive numbers."
            )


@dataclass(frozen=True)
class Statement:
    """Where something in a protocol is from.

    Parameters
    ----------
    text : str
        What is said, and by whom.
    verified : bool
        Whether that was read in the source; else it is from memory, or this project's own choice.
    """

    text: str
    verified: bool


@dataclass(frozen=True)
class Protocol:
    """Stimuli at a site, and what counts as induced.

    Re-entry is induced if tissue is still being activated `observe` ms after the last stimulus and
    some of it was activated at least `activations` times after that stimulus.

    Parameters
    ----------
    name : str
        Name.
    n_s1 : int
        Regular stimuli.
    cycle : float
        Interval between them [ms].
    stages : tuple of Stage or Earliest
        What follows them.
    observe : float
        How long activity must last after the last stimulus [ms].
    activations : int
        How often one place must be activated after it; the last stimulus itself makes one.
    sources : tuple of Statement
        Where the numbers are from.

    Raises
    ------
    InputError
        If a number is not usable.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from twinheart.planning import PROTOCOLS
    >>> quick = replace(PROTOCOLS["varp-arevalo2016"], n_s1=2, observe=1000.0)
    >>> len(quick.stages)
    3
    """

    name: str
    n_s1: int
    cycle: float
    stages: tuple[Stage | Earliest, ...]
    observe: float = 1000.0
    activations: int = 2
    sources: tuple[Statement, ...] = ()

    def __post_init__(self):
        if not 1 <= self.n_s1 <= _MOST_STIMULI:
            raise InputError(f"{self.name}: {self.n_s1} S1 stimuli, expected 1 to {_MOST_STIMULI}.")
        for what, value in (("S1 cycle", self.cycle), ("observation", self.observe)):
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{self.name}: {what} of {value} ms, expected a positive number.")
        starts = (stage.start for stage in self.stages if isinstance(stage, Stage))
        longest = max(starts, default=0.0)
        if not self.observe > longest:
            raise InputError(
                f"{self.name}: observed for {self.observe:g} ms after stimuli at {longest:g} ms: "
                "observe for longer than the longest interval."
            )
        if self.activations < 1:
            raise InputError(
                f"{self.name}: re-entry after {self.activations} activations, expected at least 1."
            )

    @property
    def s1(self) -> tuple[float, ...]:
        """Times of the regular stimuli [ms], the first at 0."""
        return tuple(k * self.cycle for k in range(self.n_s1))

    def describe(self) -> str:
        """Lines to print: the stimuli, the criterion, what is verified and what is not.

        Examples
        --------
        >>> from twinheart.planning import PROTOCOLS
        >>> print(PROTOCOLS["burst"].describe().splitlines()[0])
        burst: 2 S1 every 600 ms; then 10 stimuli at 350 to 150 ms by 10 ms
        """
        lines = [
            f"{self.name}: {self.n_s1} S1 every {self.cycle:g} ms"
            + "".join(f"; {_stage_text(k, stage)}" for k, stage in enumerate(self.stages, start=2)),
            f"  induced: tissue active {self.observe:g} ms after the last stimulus, one place "
            f"activated at least {self.activations} times after it",
        ]
        for said in self.sources:
            lines.append(f"  {'verified' if said.verified else 'not verified'}: {said.text}")
        return "\n".join(lines)


def _stage_text(number: int, stage: Stage | Earliest) -> str:
    if isinstance(stage, Earliest):
        return f"S{number} as early as it is conducted, to {stage.resolution:g} ms"
    interval = f"{stage.start:g} ms"
    if len(stage.intervals) > 1:
        interval = f"{stage.start:g} to {stage.least:g} ms by {stage.step:g} ms"
    if stage.count == 1:
        return f"S{number} at {interval}"
    return f"then {stage.count} stimuli at {interval}"


_JUDGED = Statement("captured and refractory are judged by the model, not by an ECG", False)
_VARP = Protocol(
    "varp-arevalo2016",
    6,
    600.0,
    (Stage(300.0, 10.0, 100.0),) * 3,
    observe=2000.0,
    sources=(
        Statement(
            "6 S1 at 600 ms, S2 from 300 ms by 10 ms until re-entry or no capture, S3 and S4 the "
            "same; re-entry lasts 2 s after the last stimulus: Arevalo et al. 2016 "
            "(doi:10.1038/ncomms11437), from memory",
            False,
        ),
        Statement(
            "end at 100 ms and two activations of one place: this project's own choice", False
        ),
        _JUDGED,
    ),
)
_CARDIOMAT = Protocol(
    "cardiomat2025",
    6,
    600.0,
    (Stage(350.0), Stage(300.0), Stage(280.0)),
    sources=(
        Statement("6 S1 at 600 ms, S2 at 350, S3 at 300, S4 at 280 ms: CardioMat 2025", True),
        Statement(
            "1 s of observation and two activations of one place, and that S3 and S4 are left out "
            "where the stimulus before them is not captured: this project's own choice",
            False,
        ),
        _JUDGED,
    ),
)
_DECREMENTAL = Protocol(
    "decremental",
    6,
    600.0,
    (Stage(400.0, 10.0, 150.0),) * 3,
    sources=(
        Statement(
            "6 S1 at 600 ms, S2, S3 and S4 as early as they are captured, by 10 ms: as "
            "varp-arevalo2016, but from 400 ms, where cells that are refractory for more than 300 "
            "ms still respond; from and to where is this project's own choice",
            False,
        ),
        Statement("1 s of observation, two activations of one place: as cardiomat2025", False),
        _JUDGED,
    ),
)
_BURST = Protocol(
    "burst",
    2,
    600.0,
    (Stage(350.0, 10.0, 150.0, count=10),),
    sources=(Statement("all numbers are this project's own choice", False), _JUDGED),
)

_PEERP = Protocol(
    "peerp",
    5,
    500.0,
    (Earliest(),) * 5,
    sources=(
        Statement(
            "regular stimuli, then stimuli at the end of the effective refractory period, found by "
            "bisection around activation plus duration, not before 60 ms, in a window of 80 ms "
            "that moves by 40 ms: Azzolin et al. 2021 (doi:10.3389/fphys.2021.656411), as told by "
            "the documentation of openCARP",
            True,
        ),
        Statement(
            "which end of the window moves is not told there; 5 S1 at 500 ms, at most 5 early "
            "stimuli, 1 s of observation and two activations of one place: this project's own "
            "choice",
            False,
        ),
        _JUDGED,
    ),
)

PROTOCOLS = {
    protocol.name: protocol for protocol in (_VARP, _CARDIOMAT, _DECREMENTAL, _BURST, _PEERP)
}


def named_protocol(name: str) -> Protocol:
    """Preset of a name.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.

    Examples
    --------
    >>> from twinheart.planning import named_protocol
    >>> named_protocol("cardiomat2025").s1[-1]
    3000.0
    """
    if name not in PROTOCOLS:
        raise InputError(f"unknown protocol '{name}', expected one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
