# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From scar to risk and ablation
#
# A heart with scar in, circuits of re-entry, how sure they are, and what ablation would change
# out. On the command line the same is `twinheart plan CASE.toml`, or step by step `scar`, `screen`,
# `induce`, `ablate` and `risk`. Lengths are in mm, times in ms.
# Research software: nothing here may guide a diagnosis or a treatment.

# %%
import os

import numpy as np
from IPython.display import Image

import twinheart as th
from twinheart.anatomy import add_coordinates
from twinheart.anatomy.scar import painted_masses, with_scar
from twinheart.planning import (
    Area,
    Channel,
    Protocol,
    ScarPlan,
    Stage,
    aha_sites,
    induce_sites,
    named_protocol,
    paint_scar,
)
from twinheart.planning.ablation.operation import Operation
from twinheart.planning.ablation.reach import Catheter
from twinheart.planning.ablation.table import compare_strategies
from twinheart.planning.circuits.screening import screen
from twinheart.planning.places import describe_places
from twinheart.planning.risk.ensemble import population_ensemble
from twinheart.planning.risk.measures import assess_risk
from twinheart.planning.substrate import build_substrate
from twinheart.report.planning_maps import write_circuits, write_intervals, write_lesions
from twinheart.report.scene import Scene
from twinheart.tissue import WaveTable

small = os.environ.get("TWINHEART_SMALL") == "1"  # the tests pace fewer sites

# %% [markdown]
# ## A heart with scar
#
# The demo heart with an infarct of the lateral wall: a core, border zone around it, and a channel
# from the apical to the basal side, painted by heart coordinates (`docs/scar_painting.md`).

# %%
demo = th.demo_heart()
mesh = add_coordinates(demo.mesh)
core = Area(at=(0.55, 0.33), radius=20.0, rim=4.0)
channel = Channel(path=[(0.2, 0.33), (0.9, 0.33)], width=6.0)
classes = paint_scar(mesh, ScarPlan([core], channels=[channel]))
heart = th.Heart(with_scar(mesh, classes), demo.f0, demo.s0, demo.regions)
masses = painted_masses(mesh, classes)
print(f"core {masses.core_g:.1f} g, border zone {masses.border_g:.1f} g")

# %% [markdown]
# ## The substrate
#
# Velocities and restitution by region. They are population values here: nothing was calibrated, and
# the notes say so. Restitution is measured on a cable of each cell, half a minute the first time.

# %%
if small:  # two tables by hand instead of a measurement
    own = WaveTable([20.0, 150.0, 300.0], [0.7, 0.95, 1.0], [200.0, 250.0, 270.0])
    slow = WaveTable([40.0, 150.0, 300.0], [0.7, 0.95, 1.0], [210.0, 265.0, 290.0])
    tables = {tag: own if tag < 1000 else slow for tag in (1, 2, 3, 1001, 1002, 1003)}
    substrate = build_substrate(heart, border_speed=0.6, tables=tables)
else:
    substrate = build_substrate(heart)
print(*substrate.notes, sep="\n")

# %% [markdown]
# ## Circuits without inducing them
#
# Waves from several sites meet within the scar; there is an isthmus. It would sustain re-entry if
# the way back takes longer than the longest refractory period on it, in both directions.

# %%
sites = aha_sites(heart.mesh, substrate.problem, furthest=np.inf)
sites = sites[4:12:3] if small else sites[:17]
screened = screen(substrate, sites)
for circuit in screened.circuits:
    (place,) = describe_places(heart.mesh, [circuit.exit_mm])
    print(f"cycle {circuit.cycle_length_ms:.0f} ms, isthmus {circuit.isthmus_area_mm2:.0f} mm2, "
          f"exit in {place}")  # fmt: skip
scene = Scene(heart)
drawn = [
    {"exit_mm": c.exit_mm, "isthmus_mm": c.isthmus_mm, "path_mm": c.path,
     "cycle_length_ms": c.cycle_length_ms}
    for c in screened.circuits
]  # fmt: skip
Image(write_circuits("circuits.png", scene, heart.mesh, drawn))

# %% [markdown]
# ## Where waves could turn back
#
# The re-entry vulnerability index of premature beats: low where tissue nearby is activated when
# this place has nearly recovered. It depends on its radius, which is therefore told with it.

# %%
print(f"lowest within {screened.radius:g} mm: {np.nanmin(screened.vulnerability):.0f} ms")
Image(th.report.write_map("rvi.png", scene, screened.vulnerability, quantity="rvi",
                          title="Re-entry vulnerability index"))  # fmt: skip

# %% [markdown]
# ## Programmed stimulation
#
# The cheap model proposes: what it induces is a candidate that a monodomain simulation confirms.

# %%
protocol = named_protocol("cardiomat2025")
if small:
    protocol = Protocol("S1 S2", 1, 600.0, (Stage(320.0),), observe=400.0)
paced = induce_sites(substrate.problem, substrate.tables, sites[:1] if small else sites, protocol)
for result in paced:
    print(f"{result.site.name}: {result.outcome}")

# %% [markdown]
# ## Strategies of ablation
#
# Each is screened again from all sites. The search closes isthmuses until none is left.

# %%
operation = Operation(substrate, sites, Catheter(radius=4.0))
table = compare_strategies(operation, ("isthmus",) if small else ("exit", "isthmus", "plan"))
for row in table.rows:
    print(f"{row.strategy:10} {row.lesions:3} lesions, {row.volume_ml:5.2f} ml: {row.vts_left} "
          f"circuits left, {row.new_vts} of them new")  # fmt: skip
last = table.outcomes[table.rows[-1].strategy]
Image(write_lesions("lesions.png", scene, heart.mesh, last.ablation.number))

# %% [markdown]
# ## Risk, and how sure it is
#
# There is no single number. Each measure comes with what an ensemble leaves open: velocities,
# durations and border zone from population values here, from the posterior of a calibrated twin
# with `posterior_ensemble("twin.h5", 20)`.

# %%
members = population_ensemble(substrate, 2 if small else 20, seed=1)
risk = assess_risk(substrate, sites, members)
for row in risk.intervals:
    print(f"{row.measure.label}: {row.value:.3g} ({row.low:.3g} to {row.high:.3g}) "
          f"{row.measure.unit}, known in {row.known}")  # fmt: skip
share = risk.circuit_share
print(f"{share.count} of {share.of} members have a circuit: {share.low:.0%} to {share.high:.0%}")

# %%
rows = [row._asdict() | {"label": row.measure.label, "unit": row.measure.unit}
        for row in risk.intervals]  # fmt: skip
Image(write_intervals("intervals.png", rows, 0.9))

# %%
assert len(screened.circuits) >= 1
assert last.volume_ml > 0
assert len(last.circuits) < len(screened.circuits)
