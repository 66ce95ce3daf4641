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
# # Cells
#
# The ionic models of twinheart, alone: action potentials, a drug, restitution, and a derivative.
# Times in ms, voltages in mV, currents in A/F. Research software: not for clinical use.

# %%
import os

import jax
from IPython.display import Image

import twinheart as th

small = os.environ.get("TWINHEART_SMALL") == "1"  # the tests take a cheaper model
name = "mitchell-schaeffer" if small else "torord-endo"
th.cell.model_names()

# %% [markdown]
# A model is an object whose parameters are named as in its paper. `limit_cycle` paces it until one
# beat repeats the one before; its result starts where the pacing ended, also in tissue:
# `th.Twin(heart, cell=paced)`.

# %%
cell = th.cell.get_model(name)
paced = th.cell.limit_cycle(cell, 1000.0, max_beats=20 if small else 1000).model
beat = th.cell.pace_cell(paced, bcl=1000.0)
found = th.cell.biomarkers(beat.t, beat.vm)
print(f"APD90 {found.apd90:.0f} ms, rest {found.v_rest:.1f} mV, {found.dvdt_max:.0f} V/s")

# %%
Image(th.report.write_action_potential("cell.png", beat.t, beat.vm, beat.states.get("ca_i")))

# %% [markdown]
# Channels are scaled by their names in the field, drugs block them by their Hill curves, diseases
# are published sets of factors. Dofetilide at four times its therapeutic peak blocks I_Kr:

# %%
ventricle = th.cell.get_model("tentusscher2006-epi")
treated = th.cell.apply_drug(ventricle, "dofetilide", cmax=4.0)
for label, model in (("control", ventricle), ("dofetilide", treated)):
    trace = th.cell.pace_cell(model, n_beats=2, keep_beats=1, dt=0.05)
    print(f"{label:12s} APD90 {th.cell.apd(trace.t, trace.vm):.0f} ms")

# %% [markdown]
# Restitution: how long the action potential is that follows a short diastole.

# %%
curve = th.cell.s1s2_restitution(th.cell.get_model("mitchell-schaeffer"), s1=600.0)
Image(th.report.write_restitution("restitution.png", {"S1-S2": (curve.di[:, 0], curve.apd[:, 0])}))


# %% [markdown]
# Everything can be differentiated: what does a little more I_Kr do to the duration?


# %%
def duration(g_kr):
    model = th.cell.get_model("tentusscher2006-epi", g_kr=g_kr)
    trace = th.cell.pace_cell(model, bcl=400.0, dt=0.05)
    return th.cell.apd(trace.t, trace.vm)


slope = jax.grad(duration)(0.153)
print(f"{0.01 * 0.153 * slope:.2f} ms for each per cent")
assert slope < 0.0
