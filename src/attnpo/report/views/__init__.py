"""The views of the page, as HTML that also reads without its scripts."""
