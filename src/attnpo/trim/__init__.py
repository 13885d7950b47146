"""Shorter traces without reinforcement learning: steps taken out of right traces, thinking ended early."""
