"""Circuits and vulnerability of a scar, found without inducing anything."""
