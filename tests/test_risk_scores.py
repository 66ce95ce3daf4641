"""Clinical scores: test vectors, limits, classes, and what the command says and refuses."""

import json

import pytest
from test_cli_simulate import last_error

from twinheart.cli import main
from twinheart.errors import InputError
from twinheart.planning import hcm_risk_scd
from twinheart.planning.risk.scores import RANGES

# (age, wall, atrium, gradient, family history, NSVT, syncope), index, probability: five published
# implementations of the score agree on these to all digits
VECTORS = [
    ((50, 24, 46, 40, 0, 0, 0), 2.60082756, 0.0266161326),
    ((35, 28, 45, 60, 1, 1, 0), 4.24434645, 0.1302591444),
    ((60, 17, 40, 5, 0, 0, 0), 1.83800682, 0.0125017813),
    ((25, 20, 38, 10, 0, 0, 1), 3.30653241, 0.0531696179),
]
ORDINARY = {"age": 50.0, "mwt": 20.0, "la": 40.0, "lvot": 20.0}
COMMAND = ["risk", "--score", "hcm-risk-scd", "--age", "50", "--mwt", "24", "--la", "46"]


def of(values):
    names = ("age", "mwt", "la", "lvot")
    flags = dict(zip(("family_history", "nsvt", "syncope"), map(bool, values[4:]), strict=True))
    return hcm_risk_scd(**dict(zip(names, map(float, values[:4]), strict=True)), **flags)


@pytest.mark.parametrize(("values", "index", "probability"), VECTORS)
def test_vectors(values, index, probability):
    found = of(values)
    assert found.prognostic_index == pytest.approx(index, abs=1e-9)
    assert found.probability == pytest.approx(probability, abs=1e-9)


def test_classes_are_those_of_the_guideline():
    assert [of(values).risk_class for values, *_ in VECTORS] == [
        "< 4 %",
        ">= 6 %",
        "< 4 %",
        "4-6 %",
    ]
    # at the limit of 4 % and 6 % the higher class begins
    for limit, below, above in ((0.04, "< 4 %", "4-6 %"), (0.06, "4-6 %", ">= 6 %")):
        low, high = 16.0, 115.0  # risk falls with age
        for _ in range(60):
            middle = (low + high) / 2
            found = hcm_risk_scd(age=middle, mwt=25.0, la=45.0, lvot=50.0, syncope=True)
            low, high = (middle, high) if found.probability >= limit else (low, middle)
        patient = {"mwt": 25.0, "la": 45.0, "lvot": 50.0, "syncope": True}
        assert hcm_risk_scd(age=low - 1e-6, **patient).risk_class == above
        assert hcm_risk_scd(age=high + 1e-6, **patient).risk_class == below


def test_each_risk_factor_multiplies_the_hazard():
    """In a proportional-hazards model log(1 - P) is multiplied by exp(coefficient)."""
    from math import exp, log1p

    plain = log1p(-hcm_risk_scd(**ORDINARY).probability)
    factors = {"family_history": 0.4583082, "nsvt": 0.82639195, "syncope": 0.71650361}
    for name, coefficient in factors.items():
        raised = log1p(-hcm_risk_scd(**ORDINARY, **{name: True}).probability)
        assert raised / plain == pytest.approx(exp(coefficient), rel=1e-12)


@pytest.mark.parametrize("key", RANGES)
def test_refused_just_outside_the_range_and_computed_at_its_ends(key):
    words, low, high, unit = RANGES[key]
    for end, beyond in ((low, low - 0.01), (high, high + 0.01)):
        assert 0 < hcm_risk_scd(**(ORDINARY | {key: end})).probability < 1
        with pytest.raises(InputError, match=f"{words} is .* {unit}, HCM Risk-SCD holds from"):
            hcm_risk_scd(**(ORDINARY | {key: beyond}))
    with pytest.raises(InputError, match="is nan"):
        hcm_risk_scd(**(ORDINARY | {key: float("nan")}))


def test_command_prints_one_object(capsys):
    assert main([*COMMAND, "--lvot", "40", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["probability"] == pytest.approx(0.0266161326, abs=1e-9)
    assert found["risk_class"] == "< 4 %"
    assert "of the 2014 guideline" in found["guideline"]
    assert "10.1093/eurheartj/eht439" in found["method"]
    assert "research software" in found["use"]
    assert "research software" in err


def test_command_reads_the_history(capsys):
    flags = ["--family-history", "--nsvt"]
    arguments = ["--age", "35", "--mwt", "28", "--la", "45", "--lvot", "60", *flags, "--json"]
    assert main(["risk", "--score", "hcm-risk-scd", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["probability"] == pytest.approx(0.1302591444, abs=1e-9)
    assert found["inputs"]["nsvt"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (COMMAND, "needs --lvot"),
        ([*COMMAND, "--lvot", "200"], "200 mmHg, HCM Risk-SCD holds from 2 to 154 mmHg"),
        (["risk", "--score", "madit-icd"], "unknown score 'madit-icd', expected hcm-risk-scd"),
        (["risk"], "give --heart, --score"),
    ],
)
def test_command_refuses_in_one_line(capsys, arguments, said):
    assert main(arguments) == 2
    assert said in last_error(capsys)
