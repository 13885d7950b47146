"""Outcome rewards: answers verified in a pool of worker processes that can be killed, and length-aware terms."""
