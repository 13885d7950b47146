"""`python -m attnpo` is the `attnpo` command."""

from __future__ import annotations

import sys

from attnpo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
