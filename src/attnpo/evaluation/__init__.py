"""Accuracy and length on benchmarks: questions → samples → verdicts → metrics → comparison."""
