"""Draw the gallery of cell models: docs/cells.md and the pictures under docs/cells/.

python docs/make_cells.py [MODEL ...]
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from twinheart.cell import (
    apd,
    biomarkers,
    get_model,
    limit_cycle,
    model_names,
    pace_cell,
    s1s2_restitution,
)
from twinheart.report import write_action_potential, write_restitution

HERE = Path(__file__).resolve().parent
BCL = 1000.0  # ms
MOST_BEATS = 100
HEAD = """# Cell models

Every model of the library paced at 1 Hz, to its limit cycle or for 100 beats: action potential,
calcium transient where the model has one, and the duration after an extra stimulus at shorter and
shorter intervals (S1-S2). Written by `python docs/make_cells.py`; the action potentials as by
`twinheart cell run --cell NAME --plot ap.png`.

| model | paper | variables | beats | APD90 | rest | dV/dt max |
|---|---|---|---|---|---|---|
"""


def draw(name: str) -> dict[str, Any]:
    """Pictures of one model and the numbers of its row."""
    cell = get_model(name)
    cycle = limit_cycle(cell, BCL, max_beats=MOST_BEATS)
    beat = pace_cell(cycle.model, bcl=BCL)
    found = biomarkers(beat.t, beat.vm)
    shown = min(BCL, 1.5 * float(np.nan_to_num(apd(beat.t, beat.vm), nan=BCL)))
    write_action_potential(
        HERE / "cells" / f"{name}.png", beat.t, beat.vm, beat.states.get("ca_i"),
        title=name, most=shown,
    )  # fmt: skip
    curve = s1s2_restitution(cycle.model, s1=BCL, n_s1=2)
    # Stewart's cell paces itself: what follows its own beat is no answer to the stimulus.
    driven = ~(curve.di[:, 0] > BCL)
    write_restitution(
        HERE / "cells" / f"{name}-restitution.png",
        {"S1-S2": (curve.di[driven, 0], curve.apd[driven, 0])},
        title=f"{name}, S1 {BCL:g} ms",
    )
    doi = cell.reference.removeprefix("doi:")
    row = (
        f"| [{name}](#{name}) | [{doi}](https://doi.org/{doi}) | {1 + len(cell.state_names)} "
        f"| {int(cycle.beats)}{'' if cycle.converged else ' (cycle not reached)'} "
        f"| {float(found.apd90):.0f} ms | {float(found.v_rest):.1f} mV "
        f"| {float(found.dvdt_max):.0f} V/s |"
    )
    return {"row": row, "name": name}


def main() -> None:
    """Draw all models, or those named."""
    (HERE / "cells").mkdir(exist_ok=True)
    drawn = [draw(name) for name in sys.argv[1:] or model_names()]
    text = HEAD + "\n".join(one["row"] for one in drawn) + "\n"
    for one in drawn:
        name = one["name"]
        text += f"\n## {name}\n\n![Action potential](cells/{name}.png)\n"
        text += f"![Restitution](cells/{name}-restitution.png)\n"
    (HERE / "cells.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
