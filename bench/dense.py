"""`python -m bench.dense`: exact dense search, and an index's life, against peers and the machine's own ceilings.

Run it from the root of the repository. First every answer is compared with the specification; one of ours that is
not equal to it to the bit is not timed, and the command then exits with 1.
"""

from __future__ import annotations

import sys

from bench import command, shapes

FAMILY = command.Family("dense", "Exact dense search, checked and raced.", shapes.DENSE, shapes.QUICK)

if __name__ == "__main__":
    sys.exit(command.main(FAMILY))
