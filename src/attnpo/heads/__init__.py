"""Finds the heads that attend to the steps that matter, and measures how reliable they are."""
