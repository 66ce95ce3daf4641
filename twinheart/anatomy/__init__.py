"""Anatomy: what turns a mesh into a heart."""

from twinheart.anatomy.heart import Heart

__all__ = ["Heart"]
