"""Run folders in, one self-contained HTML page out. Reads files only: no torch, no TRL, nothing from training."""
