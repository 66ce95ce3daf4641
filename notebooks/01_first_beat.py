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
# # A first beat
#
# A heart is paced at its apex; we look at when each place is activated, and at the 12-lead ECG.
# Lengths are in mm, times in ms, voltages in mV. Research software: not for clinical use.

# %%
import os

import numpy as np
from IPython.display import SVG, Image

import twinheart as th

small = os.environ.get("TWINHEART_SMALL") == "1"  # the tests stop early

# %% [markdown]
# The bundled heart has fibres that turn through the wall. The tissue conducts at 0.6 m/s along and
# 0.3 m/s across them; the cells are those of ten Tusscher and Panfilov (2006), the electrodes stand
# where they do on an adult chest. To use a heart of your own: `th.load_heart("heart.vtu")`.

# %%
heart = th.demo_heart()
twin = th.Twin(
    heart,
    cell="tentusscher2006-epi",
    conductivity=th.Velocities(cv_l=0.6, cv_t=0.3),
    electrodes=th.standard_12_lead(heart),
)
beat = th.simulate(twin, th.pace("apex"), t_end=20.0 if small else 450.0, dt=0.02)
reached = np.isfinite(beat.lat).mean()
print(f"{beat.result}: {reached:.0%} activated after {np.nanmax(beat.lat):.0f} ms")

# %% [markdown]
# Activation spreads from the apex to the base; lines join equal times, grey was not reached.

# %%
Image(th.report.write_map("activation.png", heart, beat.lat))

# %% [markdown]
# The 12-lead ECG on the usual paper: 25 mm/s, 10 mm/mV. A beat paced at the apex is broad and
# points away from the apex, unlike a normal one.

# %%
SVG(th.report.write_ecg_paper("ecg.svg", beat.ecg))

# %% [markdown]
# Everything is a plain array, ready for your own analysis. And the first place to be activated is
# the one that was paced, during the 2 ms of the stimulus:

# %%
assert 0.0 < np.nanmin(beat.lat) < 2.0
