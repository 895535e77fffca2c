"""`python -m bench.sparse [--quick] ..`: the preset sparse of `bench.run`, or its operations over few documents."""

import sys

from bench import run

if __name__ == "__main__":
    sys.exit(run.short("sparse"))
