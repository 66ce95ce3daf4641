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
# # A twin that fits its patient
#
# An ECG in, a calibrated heart out, with what the ECG cannot tell. On the command line the same is
# `twinheart calibrate --heart HEART --ecg ECG --electrodes FILE --out FOLDER`.
# Lengths are in mm, times in ms, voltages in mV. Research software: not for clinical use.

# %%
import os

import numpy as np
from IPython.display import SVG, Image

import twinheart as th
from twinheart.anatomy.root_sites import root_sites
from twinheart.calibration import (
    Settings,
    calibrate,
    determination,
    load_twin,
    measured_beat,
    misfit_test,
    translate,
    write_twin,
)
from twinheart.ecg import Ecg
from twinheart.report.calibration import write_contraction, write_fit
from twinheart.tissue import fast_endocardium

small = os.environ.get("TWINHEART_SMALL") == "1"  # the tests fit less, and a simpler cell
cell = "mitchell-schaeffer" if small else "tentusscher2006-epi"

# %% [markdown]
# ## A patient
#
# Made up, so that the truth is known: a left bundle branch block. Only the right ventricle is
# excited, at four sites; the left one follows through the septum, and a quarter of the muscle is
# slower than the rest, which the twin cannot express. 25 uV of noise are added.

# %%
heart = th.demo_heart()
electrodes = th.standard_12_lead(heart)
inferior = heart.mesh.points[heart.mesh.tets].mean(axis=1)[:, 1]
slow = inferior < np.quantile(inferior, 0.25)
regions = th.Heart(heart.mesh, heart.f0, heart.s0, np.where(slow, 2, 1))
fast = fast_endocardium(
    regions,
    th.Twin(heart, cell).cell,
    {1: th.Velocities(0.55, 0.3), 2: th.Velocities(0.4, 0.22)},
    cv=1.2,
)
patient = th.Twin(*fast, electrodes)
right = [s for s in root_sites(heart.mesh) if s.name.startswith("RV")]
stimuli = [th.pace(site.nodes, start=100.0 + site.onset) for site in right]
truth = th.simulate(patient, stimuli, t_end=600.0, propagation="eikonal")
signals = np.asarray(truth.ecg.signals)
noise = 0.025 * np.random.default_rng(0).normal(size=signals.shape)
ecg = Ecg(truth.ecg.t, signals + noise, truth.ecg.names)
SVG(th.report.write_ecg_paper("patient.svg", ecg))

# %% [markdown]
# ## The fit
#
# The beat is found and its waves are delineated. First the QRS: velocities along and across the
# fibres and in the endocardium, place and time of sites of early activation. Then the T wave: the
# action potential duration and its gradients. Many starts are screened on a coarse heart.

# %%
beat = measured_beat(ecg)
print(f"QRS from {beat.onset:.0f} to {beat.offset:.0f} ms, T wave until {beat.t_end:.0f} ms")
settings = Settings(
    sites=4 if small else 12,
    free=("cv_l", "cv_t", "lv_delay", "gain") if small else Settings().free,
    t_wave=("apd",) if small else Settings().t_wave,
    starts=8 if small else 40,
    keep=1 if small else 3,
    iterations=5 if small else 25,
    coarse_nodes=20_000,  # this heart is small: no coarse copy
)
found = calibrate(heart, beat, electrodes, cell=cell, settings=settings)
for stage in (found.qrs, found.t_wave):
    fit = stage.fit
    print(f"{len(fit.u)} parameters, {fit.iterations} iterations, {fit.result}: correlation "
          f"{np.median(list(stage.correlation.values())):.3f} (median of the leads)")  # fmt: skip

# %%
_, draws = found.qrs.posterior.predictions(20)
Image(write_fit("fit.png", found.qrs, draws))

# %% [markdown]
# ## What the ECG tells, and what it does not
#
# The posterior is narrow where the data speak, and as wide as the prior where they do not.

# %%
rows = determination(found.qrs.posterior)
print(*[row.sentence for row in rows[:8]], sep="\n")
Image(write_contraction("contraction.png", rows))

# %% [markdown]
# Can this model have made these data? Noise alone would give a small misfit. Here the model lacks
# the slow region, and the test may say so.

# %%
test = misfit_test(found.qrs.fit)
print(f"p = {test.p_value:.2g}: the model is {'' if test.rejected else 'not '}rejected")

# %% [markdown]
# ## The truth
#
# The activation was not used. In a patient it stays unknown, or an electro-anatomical map shows it.

# %%
gap = found.lat - (truth.lat - beat.zero - beat.onset)
print(f"activation: {np.sqrt(np.mean(gap**2)):.1f} ms off (root mean square) within "
      f"{np.ptp(truth.lat):.0f} ms")  # fmt: skip
Image(th.report.write_map("fitted.png", heart, found.lat))

# %% [markdown]
# ## The calibrated twin
#
# A file that holds everything, and that `twinheart simulate --heart twin.h5` reads. The waves of
# the fit were eikonal ones; here they run by the full equations, and nothing is fitted again.

# %%
stored = load_twin(write_twin("twin.h5", found))
again = translate(stored, {"qrs": found.qrs, "t_wave": found.t_wave}, dt=0.05)
for name, correlation in again.correlation.items():
    print(f"{name}: {np.median(list(correlation.values())):.3f}")

# %%
assert np.median(list(found.qrs.correlation.values())) > (0.6 if small else 0.9)
assert np.isfinite(found.lat).all()
