"""Files of problems and traces: read, checked and written."""
