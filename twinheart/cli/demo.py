"""`twinheart demo`: the bundled heart beats."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twinheart.cli.terminal import say

# Where and when a normal beat breaks through to the endocardium, after the maps of isolated human
# hearts by Durrer et al. 1970 (doi:10.1161/01.CIR.41.6.899): three places of the left ventricle
# first, the right one 5 to 10 ms later. The sites without a counterpart there stand for the
# Purkinje network, which carries the front over the rest of the endocardium.
_SITES = (  # name, x, y, z [mm], onset [ms]
    ("LV septum, middle", -23, -1, -45, 0),
    ("LV anterior, paraseptal", -10, -22, -30, 0),
    ("LV posterior, paraseptal", -7, 21, -49, 2),
    ("LV apex, lateral", 16, 0, -70, 5),
    ("LV lateral", 23, 4, -35, 10),
    ("LV posterolateral", 12, 18, -30, 10),
    ("RV septum, apical", -28, 0, -59, 5),
    ("RV anterior papillary muscle", -52, -13, -42, 6),
    ("RV inferior", -46, 22, -37, 10),
    ("RV outflow", -34, -42, -21, 15),
)
_RADIUS = 4  # mm


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("report"),
    fine: Annotated[
        bool, typer.Option("--fine", help="1 mm edges instead of 2 mm: 7 times the nodes.")
    ] = False,
    t_end: Annotated[float, typer.Option(help="Simulated time, in ms.")] = 450.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Simulate the bundled heart: activation map, beating V_m, 12-lead ECG and report.html."""
    from twinheart.cli.case import check_case
    from twinheart.cli.simulate import run_and_emit

    case = check_case(demo_case(fine=fine), {"simulation.t_end": t_end, "output.folder": str(out)})
    summary = run_and_emit(case, as_json=as_json)
    page = next((name for name in summary["files"] if name.endswith("report.html")), None)
    if page is not None:
        say(f"open {page} in a browser")


def demo_case(*, fine: bool = False) -> dict[str, Any]:
    """The demo as the tables of a case file.

    Parameters
    ----------
    fine : bool
        Edges of 1 mm instead of 2 mm.

    Returns
    -------
    dict
        For `twinheart.cli.case.check_case`.

    Examples
    --------
    >>> from twinheart.cli.demo import demo_case
    >>> demo_case()["stimuli"][0]["where"]
    'sphere:-23,-1,-45,4'
    """
    stimuli = [
        {"name": name, "where": f"sphere:{x},{y},{z},{_RADIUS}", "start": float(start)}
        for name, x, y, z, start in _SITES
    ]
    heart = {"file": "demo"} | ({"max_edge": 1.0} if fine else {})
    return {"title": "A beat of the demo heart", "heart": heart, "stimuli": stimuli}
