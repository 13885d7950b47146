"""`python -m attnpo.engines.verl …`"""

import sys

from attnpo.engines.verl.launch import command_line

sys.exit(command_line())
