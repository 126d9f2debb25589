"""``python -m dosna``: the same as the command ``dosna``."""

import sys

from dosna.cli import main

sys.exit(main())
