"""twinheart: a differentiable cardiac electrophysiology twin engine."""

__version__ = "0.1.0"
