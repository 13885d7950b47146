"""Write one self-contained HTML page from run folders. Reads files only: no torch, no TRL, no import of training."""
