"""Run `attnpo verl …` as `python -m attnpo.engines.verl …`."""

import sys

from attnpo.engines.verl.launch import main
from attnpo.errors import InputError, RunError

if __name__ == "__main__":
    try:
        print(f"run folder: {main(sys.argv[1:])}")
    except (InputError, RunError) as error:
        print(f"attnpo verl: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
