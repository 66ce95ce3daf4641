"""Imaging: from a patient's images to chambers and muscle with names."""

from twinheart.imaging.image import Image, sample
from twinheart.imaging.labels import ChamberMasks, chamber_masks, parse_labels
from twinheart.imaging.read import read_image
from twinheart.imaging.repair import repair_masks

__all__ = [
    "ChamberMasks",
    "Image",
    "chamber_masks",
    "parse_labels",
    "read_image",
    "repair_masks",
    "sample",
]
