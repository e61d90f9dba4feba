"""``python -m ferrograd``: the command line."""

import sys

from ferrograd.cli import main

sys.exit(main())
