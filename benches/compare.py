"""`ferrograd bench` of the installed package, from a clone: ``python benches/compare.py --help``."""

import sys

from ferrograd.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
