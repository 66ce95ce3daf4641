"""The page of a plan: what is said first, what is counted as a plan, what is drawn."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from calibration_samples import small_heart
from PIL import Image

from twinheart.anatomy import Heart, coordinates_of
from twinheart.anatomy.scar import with_scar
from twinheart.ecg import Ecg
from twinheart.planning.places import describe_places
from twinheart.report.planning import PlanningFindings, write_planning_report
from twinheart.report.planning_maps import LESION, PATHS, tissue_kinds, write_circuits
from twinheart.report.planning_words import best_strategy, summary_lines, warning_lines
from twinheart.report.scene import Scene
from twinheart.report.style import rgb


@pytest.fixture(scope="module")
def heart() -> Heart:
    """Core in the front of the left ventricle, border zone around it."""
    plain = small_heart()
    middle = plain.mesh.points[plain.mesh.tets].mean(axis=1)
    away = np.linalg.norm(middle - middle[middle[:, 1].argmin()], axis=1)
    scar = np.where(away < 18, 2, np.where(away < 30, 1, 0)).astype(np.int32)
    return Heart(with_scar(plain.mesh, scar), plain.f0, plain.s0, plain.regions)


@pytest.fixture(scope="module")
def circuit(heart):
    """A ring around the core, in the plane of the front."""
    centre = heart.mesh.points[heart.mesh.points[:, 1].argmin()]
    angle = np.linspace(0, 2 * np.pi, 40)
    ring = centre + 20 * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], axis=1)
    return {
        "circuit": 1,
        "exit_mm": ring[0].tolist(),
        "isthmus_mm": centre.tolist(),
        "cycle_length_ms": 312.4,
        "refractory_ms": 280.0,
        "isthmus_area_mm2": 23.0,
        "path_mm": ring.tolist(),
    }


def strategy(name, lesions, volume, left, **more):
    row = {
        "strategy": name,
        "lesions": lesions,
        "volume_ml": volume,
        "vts_left": left,
        "new_vts": 0,
        "lost_ml": 0.1,
        "activation_change_ms": 2.0,
        "warning": None,
        "notes": (),
    }
    return row | more  # fmt: skip


@pytest.fixture(scope="module")
def found(heart, circuit):
    rng = np.random.default_rng(0)
    values = rng.normal(300, 20, 20).tolist()
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    measure = {"measure": "shortest_cycle_ms", "label": "Shortest cycle", "unit": "ms",
               "value": 312.4, "low": low, "median": median, "high": high, "width": high - low,
               "known": 20, "values": values}  # fmt: skip
    lesion = (heart.mesh.cell_fields["scar"] == 1).astype(np.int32)
    return PlanningFindings(
        screen={"circuits": [circuit], "circuits_sought": True},
        ablation={
            "n_circuits": 1,
            "warnings": ["this plan isolates the right ventricle: no wave can reach it"],
            "strategies": [
                strategy("none", 0, 0.0, 1),
                strategy("exit", 1, 0.4, 1),
                strategy("isthmus", 2, 1.25, 0),
                strategy("homogenisation", 9, 8.0, 0),
                strategy("core-isolation", 20, 0.9, 0, warning="isolates the right ventricle"),
            ],
        },
        risk={
            "scar": [{"convention": "as painted", "core_g": 8.0, "border_g": 21.0, "meaning": ""}],
            "measures": [measure],
            "circuit_share": {"count": 18, "of": 20, "low": 0.699, "high": 0.972},
            "ensemble": {"members": 20, "level": 0.9, "source": "population values"},
            "ecg": {"measured": {"qrs_duration_ms": 104.0, "fragmented_qrs": True},
                    "simulated": {"qrs_duration_ms": 98.0, "fragmented_qrs": None}},
        },
        rvi=np.linspace(-20.0, 120.0, heart.mesh.n_nodes),
        lesion=lesion,
        notes=("one", "one", "two"),
        warnings=("the mesh has holes",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(heart, found, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "report.html"
    settings = {"seed": 7, "settings": {"sites": "aha17"}, "version": "0.0"}
    return write_planning_report(path, heart, found, settings=settings).read_text()


def words(page):
    """The text of a page without its pictures."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style.*?</style>", "", page)))


def test_warnings_come_before_the_summary_and_the_summary_before_pictures(page):
    text = words(page)
    order = [
        "The mesh has holes.", "This plan isolates the right ventricle", "Population values",
        "One circuit would sustain",
        "smallest sufficient set of lesions", "Strategies compared", "Measures and how sure",
        "Methods", "Settings, versions, seed", "Limits",
    ]  # fmt: skip
    places = [text.index(phrase) for phrase in order]
    assert places == sorted(places)
    assert page.index("One circuit would") < page.index("<img")


def test_the_summary_has_the_figures(page, heart, circuit):
    text = words(page)
    assert "cycle of 312 ms" in text
    assert describe_places(heart.mesh, [circuit["exit_mm"]])[0] in text
    assert "&#39;isthmus&#39;: 2 lesions, 1.25 ml" in text
    assert "18 of 20 members of the ensemble have a circuit (70 to 97 %)" in text
    assert text.count(" two ") == 1  # each assumption once
    assert "seed 7" in text
    assert "QRS duration (ms) 104 98" in text


def test_the_page_asks_for_nothing_and_is_closed(page):
    assert "<script" not in page
    assert "//" not in re.sub(r"base64,[^\"]*", "", page)
    assert page.count("<img") == page.count('src="data:image/png;base64,') == 4

    class Balance(HTMLParser):
        depth: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img"):
                self.depth.append(tag)

        def handle_endtag(self, tag):
            assert self.depth.pop() == tag

    parser = Balance()
    parser.feed(page)
    assert not parser.depth


def test_the_best_strategy_leaves_nothing_and_isolates_nothing(found):
    best = best_strategy(found.ablation)
    assert best is not None
    assert best["strategy"] == "isthmus"
    rows = [row for row in found.ablation["strategies"] if row["strategy"] != "isthmus"]
    second = best_strategy({"strategies": rows})
    assert second is not None
    assert second["strategy"] == "homogenisation"
    assert best_strategy({"strategies": rows[:2]}) is None
    assert best_strategy(None) is None
    assert best_strategy(found.ablation | {"n_circuits": 0}) is None  # nothing to be treated


def test_without_circuits_and_without_scar_it_says_so(heart, tmp_path):
    ablation = {"n_circuits": 0, "strategies": [strategy("dechannelling", 3, 0.5, 0)]}
    screened = {"circuits": [], "circuits_sought": False}
    plain = PlanningFindings(screen=screened, ablation=ablation, calibrated=True)
    page = write_planning_report(tmp_path / "plain.html", heart, plain).read_text()
    text = words(page)
    assert "The heart has no scar: no circuits were looked for." in text
    assert "calibrated to the ECG of this heart" in text
    assert "Population values" not in text
    assert "No ablation is proposed" in text
    assert "smallest sufficient" not in text
    assert "<img" not in page


def test_a_poor_fit_is_said_first(heart, found, tmp_path):
    """Of leads that turn the wrong way, or are flat."""
    fit = {
        "qrs": {"I": 0.98, "II": 0.94, "V1": 0.71, "V2": -0.4},
        "t_wave": {"I": 0.9, "II": 0.49, "V1": 0.8, "V2": float("nan")},
    }
    plain = found._replace(calibrated=True, fit=fit)
    page = write_planning_report(tmp_path / "poor.html", heart, plain).read_text()
    text = words(page)
    warning = (
        "The twin does not reproduce leads V2 (QRS -0.40), II (T wave 0.49): what follows rests"
    )
    assert text.index(warning) < text.index("This plan isolates the right ventricle")
    assert "QRS 0.82 in the median lead, -0.40 in the least (V2)" in text
    assert "QRS 0.82 -0.40 0.98 0.94 0.71 -0.40" in text
    assert "T wave 0.80 0.49 0.90 0.49 0.80 -" in text


def test_a_good_fit_is_told_without_a_warning(found):
    fit = {"qrs": {"I": 0.98, "II": 0.6}}
    plain = found._replace(calibrated=True, fit=fit)
    assert not any("reproduce" in line for line in warning_lines(plain))
    assert "0.60 in the least (II)" in summary_lines(plain, [])[-1]
    unknown = summary_lines(found._replace(calibrated=True), [])[-1]
    assert unknown.endswith("how well is not in the file of the twin.")
    many = {"qrs": {f"V{k}": -0.1 * k for k in range(1, 7)}}
    first = warning_lines(found._replace(calibrated=True, fit=many))[0]
    assert "leads V6 (QRS -0.60), V5 (QRS -0.50), V4 (QRS -0.40), V3 (QRS -0.30), 2 more" in first


def test_induction_is_counted(heart, tmp_path):
    row = {"outcome": "not induced", "coupling_ms": []}
    induction = {
        "settings": {"preset": "cardiomat2025"},
        "sites": [
            {"outcome": "induced", "coupling_ms": [600.0, 350.0, 280.0]},
            {"outcome": "induced", "coupling_ms": [600.0, 350.0]},
            *([row] * 15),
        ],
        "inducible_sites": ["a", "b"],
        "vts": [
            {
                "cycle_length_ms": 320.0,
                "morphology": "monomorphic",
                "sites": ["a", "b"],
                "ecg": {
                    "rate_per_min": 187.5,
                    "qrs_ms": 164.0,
                    "axis_deg": -71.0,
                    "pattern": "right bundle branch",
                    "transition": "V3",
                    "ends_ms": 1240.0,
                },
            }
        ],
    }
    t = np.arange(0.0, 2000.0)
    leads = Ecg(t, np.sin(t / 51.0)[:, None], ("II",))
    vt = np.arange(heart.mesh.n_nodes) % 300.0
    nothing = {"circuits": []}
    some = PlanningFindings(screen=nothing, induction=induction, vt=vt, vt_ecg=leads)
    page = write_planning_report(tmp_path / "vt.html", heart, some).read_text()
    text = words(page)
    assert page.count("<img") == 2
    assert "at 188 per minute, would show a QRS of 164 ms with the pattern of right bundle" in text
    assert "1 188 164 -71 right bundle branch block V3 ends at 1.2 s" in text
    assert "Simulated for longer, it ends by itself." in text
    assert "re-entry for which screening finds no circuit" in text
    assert "induced 1 tachycardia from 2 of 17 sites" in text
    assert "shortest coupling interval was 280 ms" in text
    assert "monomorphic" in text
    assert "Protocol cardiomat2025." in text


def test_it_says_whether_stimulation_was_repeated_after_ablation(found):
    some = found._replace(induction={"inducible_sites": ["a"], "sites": [{}], "vts": []})
    assert "can still be induced was not tested." in " ".join(summary_lines(some, []))
    tested = {**found.ablation, "induction": "burst", "plan": {"induced_from": []}}
    tested["strategies"] = [*tested["strategies"], strategy("plan", 3, 2.5, 0)]
    lines = " ".join(summary_lines(some._replace(ablation=tested), []))
    assert "that of 'plan': 3 lesions, 2.50 ml" in lines  # others burn less, but were not paced
    assert "with the plan, stimulation induces nothing." in lines
    left = {**tested, "plan": {"induced_from": ["a", "b"]}}
    lines = " ".join(summary_lines(some._replace(ablation=left), []))
    assert "still induced from 2 sites" in lines
    lines = " ".join(summary_lines(found._replace(ablation=tested), []))
    assert "stimulation induces nothing, as before." in lines
    assert "still induced" not in " ".join(summary_lines(found, []))


def test_a_plan_against_what_only_stimulation_finds_is_proposed(found):
    ablation = {
        "n_circuits": 0,
        "induction": "burst",
        "plan": {"induced_from": []},
        "strategies": [strategy("dechannelling", 1, 0.5, 0), strategy("plan", 2, 1.5, 0)],
    }
    some = found._replace(
        screen={"circuits": []}, ablation=ablation,
        induction={"inducible_sites": ["a"], "sites": [{}], "vts": []},
    )  # fmt: skip
    assert best_strategy(ablation)["strategy"] == "plan"
    assert "screening finds no circuit" not in " ".join(warning_lines(some))
    ablation = ablation | {"plan": {"induced_from": ["a"]}}
    assert best_strategy(ablation) is None
    assert "screening finds no circuit" in " ".join(warning_lines(some._replace(ablation=ablation)))


def test_kinds_of_tissue_fill_what_they_fill(heart):
    scar = heart.mesh.cell_fields["scar"]
    kinds = tissue_kinds(heart.mesh)
    inside = np.ones(heart.mesh.n_nodes, dtype=bool)
    inside[heart.mesh.tets[scar != 2]] = False  # all around them is core
    assert inside.any()
    assert set(kinds[inside]) == {2}
    burnt = tissue_kinds(heart.mesh, np.ones(heart.mesh.n_tets, dtype=np.int32))
    assert set(burnt) == {3}


def test_no_third_class_comes_between_two(heart):
    """First and last of three touch everywhere: green, which is between them, is not there."""
    scene = Scene(heart)
    kinds = np.where(tissue_kinds(heart.mesh) == 2, 2, 0)
    seen = np.zeros(2)
    for view in ("anterior", "left lateral", "right lateral", "cut open"):
        picture = scene.draw_classes(kinds, view, colours=("#ff0000", "#00ff00", "#0000ff"))
        red, green, blue = np.moveaxis(picture.astype(float), 2, 0)
        seen += (red > blue + 100).sum(), (blue > red + 100).sum()
        assert not (green > np.maximum(red, blue) + 20).any()
    assert (seen > 1000).all()


def test_a_circuit_is_drawn_in_its_colour(heart, circuit, tmp_path):
    scene = Scene(heart)

    def painted(circuits):
        file = write_circuits(tmp_path / "circuits.png", scene, heart.mesh, circuits)
        colours = np.asarray(Image.open(file).convert("RGB"), dtype=float)
        return (np.abs(colours - 255 * np.array(rgb(PATHS[0]))).max(axis=2) < 12).sum()

    assert painted([circuit]) > 500
    assert painted([]) == 0
    assert LESION not in PATHS


def test_places_are_told_in_words(heart):
    mesh = heart.mesh
    at = coordinates_of(mesh)
    assert at is not None
    left = at.tv < 0.5
    apex, base = (np.flatnonzero(left)[k] for k in (at.ab[left].argmin(), at.ab[left].argmax()))
    low, high = describe_places(mesh, mesh.points[[apex, base]])
    assert low.startswith("LV segment 17 (apex)")
    assert "basal" in high
    inner = np.flatnonzero(left & (at.tm < 0.1) & (at.rt < 0.6))
    assert all(
        place.endswith("subendocardial") for place in describe_places(mesh, mesh.points[inner])
    )
