"""`python -m attnpo.engines.verl …` is `attnpo verl …`."""

import sys

from attnpo.cli.main import main

sys.exit(main(["verl", *sys.argv[1:]]))
