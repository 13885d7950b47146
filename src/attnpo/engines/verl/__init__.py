"""On verl and Ray: the method inside verl's own training step, without a fork (docs/verl.md).

`options`, `ledger`, `wire`, `checks`, `settings` and `data` import no verl; `engine`, `trainer`, `reward` and `cpu` are
loaded by verl's processes; `launch` runs on the machine where the command was given.
"""
