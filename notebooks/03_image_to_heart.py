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
# # From an image to a beating heart
#
# A label image says which voxels are blood and which muscle. From it we make tetrahedra, fibres,
# coordinates and a conduction system, and let the heart beat once. On the command line the same is
# `twinheart mesh build`, `twinheart anatomy build` and `twinheart simulate`.
# Research software: not for clinical use.

# %%
import os
from pathlib import Path

import numpy as np
from IPython.display import SVG
from IPython.display import Image as Picture

import twinheart as th
from twinheart.anatomy.coordinates import add_coordinates, coordinates_of
from twinheart.anatomy.purkinje import grow_purkinje
from twinheart.imaging import Image, chamber_masks, read_image, repair_masks
from twinheart.imaging.build import mesh_muscle
from twinheart.imaging.from_labels import chambers_from_masks
from twinheart.mesh.biventricle import BiventricularShape
from twinheart.tissue import ConductionSystem

small = os.environ.get("TWINHEART_SMALL") == "1"  # the tests take larger tetrahedra

# %% [markdown]
# ## The image
#
# The labels of a patient's cine MRI, if they are at hand. Otherwise the heart that comes with the
# program, seen in voxels of 1.5 mm: 1 is the blood of the left ventricle, 2 muscle, 3 the blood of
# the right ventricle.

# %%
folder = Path(os.environ.get("TWINHEART_DATA", "../../shared/data"))
file = folder / "cine_mri_patient" / "derived_labels_ED_1p5mm.nii.gz"
if file.exists():
    image = read_image(file)
else:
    shape = BiventricularShape()
    low, high = shape.bounds()
    counts = np.ceil((high - low + 12.0) / 1.5).astype(int)
    points = low - 6.0 + 1.5 * np.indices(counts).reshape(3, -1).T
    below = points[:, 2] < 0.0
    voxels = np.zeros(len(points), np.uint8)
    voxels[below & (shape.epicardium(points) < 0)] = 2
    voxels[below & (shape.lv_cavity(points) < 0)] = 1
    voxels[below & (shape.rv_cavity(points) < 0)] = 3
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = low - 6.0
    image = Image(voxels.reshape(counts), affine)

# %% [markdown]
# ## Tetrahedra
#
# Real labels have islands, holes and walls that are too thin; every repair is said. The mesh knows
# where its boundary belongs: base, epicardium, left or right endocardium.

# %%
edge = 2.5 if small else 1.2  # mm
masks, repairs = repair_masks(chamber_masks(image, "lv_pool=1,myo=2,rv_pool=3"))
print(*repairs, sep="\n")
mesh, figures = mesh_muscle(chambers_from_masks(masks, edge), edge)
print(f"{mesh.n_nodes} nodes, {mesh.n_tets} tetrahedra, {figures['volume_ml']:.1f} ml of muscle")

# %% [markdown]
# ## Coordinates, fibres, conduction system
#
# Each place has a depth in the wall, a height, an angle around the ventricle, a side. Fibres turn
# from +60 degrees at the endocardium to -60 degrees at the epicardium (Bayer et al. 2012). The
# Purkinje tree grows on the endocardia, always the same for the same seed.

# %%
heart = th.add_fibres(th.Heart(add_coordinates(mesh)))
at = coordinates_of(heart.mesh)
tree = grow_purkinje(heart.mesh, seed=0)
print(f"a tree of {tree.lengths.sum() / 1000:.1f} m with {len(tree.junctions)} junctions")
Picture(th.report.write_map("height.png", heart, at.ab))

# %% [markdown]
# ## A beat
#
# It starts where the tree does, at the bundle of His.

# %%
twin = th.Twin(
    heart,
    cell="mitchell-schaeffer" if small else "tentusscher2006-epi",
    conductivity=th.Velocities(cv_l=0.6, cv_t=0.3),
    electrodes=th.standard_12_lead(heart),
    purkinje=ConductionSystem(tree),
)
beat = th.simulate(twin, th.pace("purkinje"), t_end=60.0 if small else 450.0, dt=0.02)
print(f"{np.isfinite(beat.lat).mean():.0%} activated, the last at {np.nanmax(beat.lat):.0f} ms")
Picture(th.report.write_map("activation.png", heart, beat.lat))

# %%
SVG(th.report.write_ecg_paper("ecg.svg", beat.ecg))

# %% [markdown]
# The muscle starts on the endocardium, where the tree ends, and later than the tree.

# %%
first = np.nanargmin(beat.lat)
assert at.tm[first] < 0.5
assert np.nanmin(beat.purkinje_lat) < beat.lat[first]
