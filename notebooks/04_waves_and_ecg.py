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
# # Fast waves and ECGs
#
# A whole beat in seconds: the eikonal equation gives the activation times, a template the action
# potentials, the lead field the ECG. All of it has derivatives. On the command line the same is
# `twinheart simulate --propagation eikonal`, and `twinheart ecg` reads and measures recordings.
# Lengths are in mm, times in ms, voltages in mV. Research software: not for clinical use.

# %%
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import SVG, Image

import twinheart as th
from twinheart.anatomy.purkinje import grow_purkinje
from twinheart.ecg import compare_beats, ecg_features, smooth_qrs_duration
from twinheart.ecg.io import read_ecg
from twinheart.tissue import ConductionSystem

small = os.environ.get("TWINHEART_SMALL") == "1"  # the tests take a simpler cell

# %% [markdown]
# ## A beat by the eikonal equation
#
# The front runs at the velocities of the tissue, 0.6 m/s along the fibres and 0.3 m/s across them,
# and at 2.2 m/s in the Purkinje tree, from which it enters the muscle at the junctions.

# %%
heart = th.demo_heart()
twin = th.Twin(
    heart,
    cell="mitchell-schaeffer" if small else "tentusscher2006-epi",
    conductivity=th.Velocities(cv_l=0.6, cv_t=0.3),
    electrodes=th.standard_12_lead(heart),
    purkinje=ConductionSystem(grow_purkinje(heart.mesh, seed=0)),
)
beat = th.simulate(twin, th.pace("purkinje"), t_end=500.0, propagation="eikonal")
print(f"{np.isfinite(beat.lat).mean():.0%} activated, the last at {np.nanmax(beat.lat):.0f} ms")
Image(th.report.write_map("activation.png", heart, beat.lat))

# %%
SVG(th.report.write_ecg_paper("simulated.svg", beat.ecg))

# %% [markdown]
# ## Its derivatives
#
# By how much does each velocity change the time at which the last place is activated? One solve
# forward, one backward, exact to rounding. The rows are the regions of the heart and the tree, the
# columns the directions of fibre, sheet and normal.

# %%
wave = th.eikonal_beat(twin, th.pace("purkinje"), t_end=500.0)


def last(velocity):
    faster = eqx.tree_at(lambda w: w.problem.velocity, wave, velocity)
    return faster.lat().max()


slope = jax.grad(last)(wave.problem.velocity)
print("ms per m/s:", np.asarray(slope).round(1), sep="\n")

# %% [markdown]
# And of the ECG: what a little more velocity everywhere does to the width of the QRS, predicted by
# the derivative and done.


# %%
def width(factor):
    faster = eqx.tree_at(
        lambda w: w.problem.velocity, wave, replace_fn=lambda velocity: factor * velocity
    )
    return smooth_qrs_duration(jnp.asarray(wave.ecg.t), faster.potentials())


now, slope = jax.jvp(width, (jnp.float32(1.0),), (jnp.float32(1.0),))
predicted, done = 0.05 * slope, width(jnp.float32(1.05)) - now
print(f"QRS {now:.0f} ms; 5 % faster: {predicted:.1f} ms predicted, {done:.1f} ms done")

# %% [markdown]
# ## A recording
#
# WFDB, DICOM, HL7 aECG, SCP-ECG, EDF and tables are read alike; names of patients are left behind.
# Here a recording of the PTB database, if it is at hand, else the simulated ECG from its file.

# %%
folder = Path(os.environ.get("TWINHEART_DATA", "../../shared/data"))
file = folder / "ecg" / "ptbdb" / "s0010_re.hea"
if not file.exists():
    th.ecg.write_ecg("simulated.hea", beat.ecg)
    file = Path("simulated.hea")
recording = read_ecg(file)
measured = ecg_features(recording.ecg)
print(*recording.notes, *measured.notes, sep="\n")
for key in ("heart_rate_bpm", "qrs_duration_ms", "qt_ms", "qtc_fridericia_ms", "axis_deg"):
    print(f"{key:20s} {measured.values[key]}")

# %% [markdown]
# Both beats over each other, at the onsets of their QRS. They are of different persons: to make
# them alike is the work of a calibration.

# %%
both = compare_beats(measured, ecg_features(beat.ecg))
SVG(th.report.write_ecg_paper("both.svg", both.measured, overlay=both.simulated))

# %%
assert np.isfinite(beat.lat).all()
assert abs(predicted - done) < 1.0
