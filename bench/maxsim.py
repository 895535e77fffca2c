"""`python -m bench.maxsim [--quick] ..`: the preset maxsim of `bench.run`, or its operations over few documents."""

import sys

from bench import run

if __name__ == "__main__":
    sys.exit(run.short("maxsim"))
