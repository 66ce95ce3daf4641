"""Where a tachycardia leaves its scar: simulated paced beats against a recorded one."""
