"""The views of the page, one file per tab; their HTML is readable without scripts."""
