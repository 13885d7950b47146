"""Reading, checking and writing files of problems and traces."""
