"""The method inside the training step of verl on Ray, without a fork (docs/verl.md).

`options`, `ledger`, `wire`, `checks`, `settings` and `data` do not import verl; `engine`, `trainer`, `reward` and `cpu`
are loaded by verl's processes; `launch` runs on the machine where the user starts the command.
"""
