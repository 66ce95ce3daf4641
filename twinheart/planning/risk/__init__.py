"""Risk: structured measures with their intervals, clinical scores, judging models of risk."""
