"""Outcome rewards: verified answers (a pool of killable worker processes) and length-aware terms."""
