"""Accuracy against length on benchmarks: questions → samples → verdicts → metrics → comparison."""
