"""`python -m bench.maxsim`: exact late interaction (MaxSim) against its peers and the machine's own ceilings.

As `bench.dense`, and with the same options. The rows are those of the project's plan, by letter: A a query over
texts, B over pages, C 32 queries, D and D' a training step, E a larger search, G compressed documents; F is the
column "+MB" of all of them.
"""

from __future__ import annotations

import sys

from bench import command, token_shapes

FAMILY = command.Family("maxsim", "Exact late interaction, checked and raced.", token_shapes.MAXSIM, token_shapes.QUICK)

if __name__ == "__main__":
    sys.exit(command.main(FAMILY))
