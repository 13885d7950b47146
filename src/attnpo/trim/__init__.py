"""Shorter traces without reinforcement learning: right traces with steps removed, and thinking ended early."""
