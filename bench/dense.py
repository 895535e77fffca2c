"""`python -m bench.dense [--quick] ..`: the preset dense of `bench.run`, or its operations over few documents."""

import sys

from bench import run

if __name__ == "__main__":
    sys.exit(run.short("dense"))
