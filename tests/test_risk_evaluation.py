"""Judging a model of risk: brute force, closed forms, theory; the command, what it refuses."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import mannwhitneyu
from test_cli_simulate import last_error
from tolerances import EXACT64

from twinheart.cli import main
from twinheart.errors import InputError
from twinheart.planning import PatientTable, evaluate, read_patient_table
from twinheart.planning.risk.evaluation import concordance, observed, recalibration


def logit(p):
    return np.log(p / (1 - p))


def cohort(n, seed, *, slope=1.0, shift=0.0):
    """Predictions, and outcomes whose logit is shift + slope times that of the prediction."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1.5, 6.0, n).clip(0.005, 0.95)
    true = 1 / (1 + np.exp(-(shift + slope * logit(p))))
    return p, rng.random(n) < true


def plain_concordance(p, outcome, time):
    """Harrell's C, pair by pair."""
    right = pairs = 0.0
    for i in range(len(p)):
        for j in range(len(p)):
            first = time[i] < time[j] or (time[i] == time[j] and not outcome[j])
            if outcome[i] and first and i != j:
                pairs += 1
                right += 1.0 if p[i] > p[j] else 0.5 if p[i] == p[j] else 0.0
    return right / pairs


def test_concordance_is_that_of_all_pairs_with_ties():
    rng = np.random.default_rng(1)
    for _ in range(20):
        n = int(rng.integers(4, 30))
        p, outcome = rng.integers(0, 6, n) / 7.0, rng.random(n) < 0.5
        outcome[:2] = True, False
        time = rng.integers(1, 8, n).astype(float)
        time[0] = 0.5  # one pair at least
        found = concordance(p, outcome, time, np.ones((n, 1)))[0]
        assert found == pytest.approx(plain_concordance(p, outcome, time), rel=EXACT64)


def test_without_times_it_is_the_rank_sum():
    p, outcome = cohort(300, 2)
    p = p.round(2)  # ties
    u = mannwhitneyu(p[outcome], p[~outcome]).statistic
    found = evaluate(PatientTable(p, outcome), resamples=1).c_index.value
    assert found == pytest.approx(u / (outcome.sum() * (~outcome).sum()), rel=EXACT64)


def test_weights_are_copies_of_patients():
    """A resample that draws a patient twice is the table with that patient twice."""
    rng = np.random.default_rng(3)
    p, outcome = cohort(40, 3)
    time = rng.exponential(5.0, 40).round(1) + 0.1
    copies = rng.integers(0, 4, 40)
    copies[outcome.argmax()] = 2
    again = np.repeat(np.arange(40), copies)
    weights = copies[:, None].astype(float)
    one = np.ones((len(again), 1))
    expected = concordance(p[again], outcome[again], time[again], one)
    np.testing.assert_allclose(concordance(p, outcome, time, weights), expected, rtol=EXACT64)
    expected = recalibration(p[again], outcome[again], one)
    np.testing.assert_allclose(recalibration(p, outcome, weights), expected, rtol=1e-9)
    horizon = float(np.median(time))
    whole = PatientTable(p[again], outcome[again], time[again])
    expected = observed(whole, horizon, one)
    found = observed(PatientTable(p, outcome, time), horizon, weights)[again]
    np.testing.assert_allclose(found, expected, rtol=EXACT64)


def test_recalibration_maximises_the_likelihood():
    p, outcome = cohort(400, 4, slope=0.6, shift=-0.4)
    x = logit(p)

    def loss(coefficients):
        z = coefficients[0] + coefficients[1] * x
        return np.sum(np.logaddexp(0.0, z) - outcome * z)

    best = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    slope, intercept, large = recalibration(p, outcome, np.ones((400, 1)))
    np.testing.assert_allclose([intercept[0], slope[0]], best.x, atol=1e-5)
    # in the large: the mean prediction, shifted, is the observed rate
    shifted = 1 / (1 + np.exp(-(large[0] + x)))
    assert shifted.mean() == pytest.approx(outcome.mean(), rel=1e-9)


def test_calibration_of_a_group_has_a_closed_form():
    """Two risks: the line goes through both observed logits."""
    p = np.repeat([0.1, 0.4], [50, 20])
    outcome = np.concatenate([np.arange(50) < 10, np.arange(20) < 5])
    slope, intercept, _ = recalibration(p, outcome, np.ones((70, 1)))
    expected = (logit(0.25) - logit(0.2)) / (logit(0.4) - logit(0.1))
    assert slope[0] == pytest.approx(expected, rel=1e-9)
    assert intercept[0] == pytest.approx(logit(0.2) - expected * logit(0.1), rel=1e-9)


@pytest.mark.parametrize(
    ("p", "outcome"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]),  # parted
        ([0.1, 0.3, 0.3, 0.4], [1, 1, 0, 0]),  # parted but for a tie, the wrong way round
        ([0.2, 0.2, 0.2, 0.2], [0, 1, 0, 1]),  # all alike
        ([0.0, 0.2, 0.3, 0.1], [0, 1, 0, 1]),  # a certain prediction
    ],
)
def test_a_slope_that_does_not_exist_is_missing(p, outcome):
    found = evaluate(PatientTable(np.array(p), np.array(outcome, dtype=bool)), resamples=20)
    assert np.isnan(found.slope.value)
    assert np.isfinite(found.brier.value)


def test_a_calibrated_model_is_found_calibrated_and_an_extreme_one_not():
    found = evaluate(PatientTable(*cohort(4000, 5)), resamples=200)
    assert found.slope.low < 1 < found.slope.high
    assert found.in_the_large.low < 0 < found.in_the_large.high
    assert found.skill.low > 0
    extreme = evaluate(PatientTable(*cohort(4000, 5, slope=0.5)), resamples=200)
    assert extreme.slope.high < 0.7


def test_intervals_cover_as_often_as_they_say():
    """95 % intervals of the slope hold the true one in 95 % of cohorts: 2 sd of 100 are 4.4."""
    inside = 0
    for seed in range(100):
        found = evaluate(PatientTable(*cohort(400, 1000 + seed, slope=0.8)), resamples=200)
        inside += found.slope.low <= 0.8 <= found.slope.high
    assert 88 <= inside <= 100


def test_brier_score_and_net_benefit_are_counts():
    p = np.array([0.05, 0.2, 0.2, 0.6, 0.9])
    outcome = np.array([False, True, False, False, True])
    found = evaluate(PatientTable(p, outcome), thresholds=[0.2, 0.5], resamples=5)
    assert found.brier.value == pytest.approx((0.05**2 + 0.8**2 + 0.2**2 + 0.6**2 + 0.1**2) / 5)
    assert found.skill.value == pytest.approx(1 - found.brier.value / 0.24)
    curve = found.decision_curve
    # at 0.2 both events and two others are treated; at 0.5 one event and one other
    assert [b.value for b in curve.model] == pytest.approx([2 / 5 - 2 / 5 / 4, 1 / 5 - 1 / 5])
    assert [b.value for b in curve.treat_all] == pytest.approx([2 / 5 - 3 / 5 / 4, 2 / 5 - 3 / 5])


def censored(n, seed):
    """Event times of 10 predicted risks, and losses on the way; all in years."""
    rng = np.random.default_rng(seed)
    rate = rng.choice(np.linspace(0.02, 0.4, 10), n)
    event, loss = rng.exponential(1 / rate), rng.exponential(8.0, n)
    p = 1 - np.exp(-5 * rate)
    return PatientTable(p, event <= loss, np.minimum(event, loss)), event


def test_weights_of_the_known_add_up_to_all_patients():
    """Kaplan-Meier: survival times being observed is the share still there, so shares add to 1."""
    table, _ = censored(500, 6)
    known = (table.outcome & (table.time <= 5)) | (table.time >= 5)
    chance = observed(table, 5.0, np.ones((500, 1)))[:, 0]
    assert (1 / chance[known]).sum() == pytest.approx(500, rel=1e-12)
    assert known.sum() < 400


def test_loss_on_the_way_does_not_bias():
    """With a third of the patients lost the measures are those of the outcomes of all."""
    table, event = censored(10_000, 7)
    found = evaluate(table, horizon=5.0, thresholds=[0.3], resamples=1)
    full = evaluate(PatientTable(table.probability, event <= 5), thresholds=[0.3], resamples=1)
    assert found.n_unknown > 2000
    assert found.brier.value == pytest.approx(full.brier.value, abs=0.004)
    assert found.slope.value == pytest.approx(1.0, abs=0.05)
    benefit = found.decision_curve.model[0].value
    assert benefit == pytest.approx(full.decision_curve.model[0].value, abs=0.01)
    # whoever counts the lost as healthy thinks that the model predicts too much
    assert evaluate(table, resamples=1).in_the_large.value < -0.1


def test_same_seed_same_intervals():
    table = PatientTable(*cohort(100, 8))
    first, again, other = (evaluate(table, resamples=50, seed=s) for s in (0, 0, 1))
    assert first.c_index == again.c_index
    assert first.c_index.value == other.c_index.value
    assert first.c_index.low != other.c_index.low


def write(path, text):
    path.write_text(text)
    return path


def test_command_evaluates_a_table(tmp_path, capsys):
    table, _ = censored(200, 9)
    rows = zip(table.probability, table.outcome, table.time, strict=True)
    text = "id,Probability,outcome,time\n" + "".join(f"x,{p},{int(o)},{t}\n" for p, o, t in rows)
    file = write(tmp_path / "table.csv", text)
    assert read_patient_table(file).n_events == table.n_events
    options = ["--horizon", "5", "--thresholds", "0.04,0.06", "--resamples", "50", "--json"]
    assert main(["risk", "--evaluate", str(file), *options]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    expected = evaluate(table, horizon=5.0, thresholds=[0.04, 0.06], resamples=50)
    assert found["c_index"]["value"] == pytest.approx(expected.c_index.value)
    assert found["c_index"]["low"] < found["c_index"]["value"] < found["c_index"]["high"]
    assert [row["threshold"] for row in found["decision_curve"]] == [0.04, 0.06]
    assert found["n_unknown"] == expected.n_unknown > 0
    assert "research software" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'probability'"),
        ("p;outcome\n0.1;0\n", "no column 'probability'"),
        ("probability,outcome\n0.1,0\n0.2,2\n", "line 3: the outcome is 2, expected 0"),
        ("probability,outcome\n10,0\n20,1\n", "from 0 to 1 (not per cent)"),
        ("probability,outcome\n0.1\n", "line 2: the outcome is '', expected a number"),
        ("probability,outcome\nnan,1\n", "line 2: the probability is 'nan'"),
        ("probability,outcome\n0.1,1\n0.2,1\n", "2 of 2 patients had an event"),
        ("probability,outcome,time\n0.1,1,0\n0.2,0,1\n", "the time is 0, expected a positive"),
        ("probability,probability,outcome\n0.1,1,0\n", "more than once"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, capsys, text, said):
    file = write(tmp_path / "table.csv", text)
    assert main(["risk", "--evaluate", str(file)]) == 2
    assert said in last_error(capsys)


def test_options_that_do_not_fit_are_refused(tmp_path, capsys):
    file = str(write(tmp_path / "t.csv", "probability,outcome\n0.1,0\n0.3,1\n"))
    for arguments, said in (
        (["--evaluate", file, "--score", "hcm-risk-scd"], "give --heart, --score"),
        (["--evaluate", file, "--age", "50"], "--age belongs to --score"),
        (["--evaluate", file, "--horizon", "5"], "needs the column 'time'"),
        (["--evaluate", file, "--thresholds", "4,6"], "between 0 and 1"),
        (["--evaluate", file, "--thresholds", "low"], "such as 0.04,0.06"),
        (["--evaluate", str(tmp_path / "none.csv")], "cannot read the table"),
        (["--score", "hcm-risk-scd", "--horizon", "5"], "--horizon belongs to --evaluate"),
    ):
        assert main(["risk", *arguments]) == 2
        assert said in last_error(capsys)
    with pytest.raises(InputError, match="times end at"):
        evaluate(censored(50, 1)[0], horizon=1e6)
