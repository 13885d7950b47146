"""From run and evaluation folders to numbers: nothing here knows HTML."""
