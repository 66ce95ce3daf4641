"""Stimulation protocols: intervals, presets and what is known of their sources."""

import numpy as np
import pytest

from twinheart.errors import InputError
from twinheart.planning import PROTOCOLS, Protocol, Stage, named_protocol


@pytest.mark.parametrize(("step", "least"), [(10.0, 100.0), (0.1, 299.3), (70.0, 100.0)])
def test_intervals_fall_by_the_step_and_not_below_the_least(step, least):
    intervals = np.array(Stage(300.0, step, least).intervals)
    assert intervals[0] == 300.0
    np.testing.assert_allclose(np.diff(intervals), -step)
    assert least - 1e-6 <= intervals[-1] < least + step - 1e-6


def test_presets_are_those_of_their_sources():
    varp = named_protocol("varp-arevalo2016")
    assert (varp.n_s1, varp.cycle, varp.observe) == (6, 600.0, 2000.0)
    assert [(s.start, s.step, s.count) for s in varp.stages] == [(300.0, 10.0, 1)] * 3
    fixed = named_protocol("cardiomat2025")
    assert [s.intervals for s in fixed.stages] == [(350.0,), (300.0,), (280.0,)]
    assert fixed.s1 == (0.0, 600.0, 1200.0, 1800.0, 2400.0, 3000.0)


def test_what_is_unverified_is_printed():
    for protocol in PROTOCOLS.values():
        text = protocol.describe()
        assert protocol.name in text
        assert f"{protocol.observe:g} ms" in text
        assert text.count("  not verified:") == sum(not s.verified for s in protocol.sources) > 0
    assert "  verified:" in named_protocol("cardiomat2025").describe()
    assert "  verified:" not in named_protocol("varp-arevalo2016").describe()  # all from memory


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage(100.0, 10.0, 200.0), "not above"),
        (lambda: Stage(np.nan), "positive"),
        (lambda: Stage(300.0, 0.0, 200.0), "step"),
        (lambda: Stage(300.0, -5.0, 200.0), "step"),
        (lambda: Stage(300.0, count=0), "stimuli"),
        (lambda: Protocol("p", 0, 600.0, ()), "S1 stimuli"),
        (lambda: Protocol("p", 1, -1.0, ()), "S1 cycle"),
        (lambda: Protocol("p", 1, 600.0, (), observe=0.0), "observation"),
        (lambda: Protocol("p", 1, 600.0, (Stage(300.0),), observe=300.0), "longest interval"),
        (lambda: Protocol("p", 1, 600.0, (), activations=0), "activations"),
        (lambda: named_protocol("varp"), "varp-arevalo2016, cardiomat2025, decremental, burst"),
    ],
)
def test_bad_protocols_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
