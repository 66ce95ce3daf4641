"""What re-entry does: phase, singularities and filaments, its circuit, how fast it drives."""
