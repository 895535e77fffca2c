"""`python -m bench.sparse`: exact sparse search against its peers and the machine's own ceilings.

As `bench.dense`, and with the same options. Single queries are asked one by one, many of them in a call. The floor of a
search is to read the postings of its lists once, 8 bytes each.
"""

from __future__ import annotations

import sys

from bench import command, sparse_shapes

FAMILY = command.Family("sparse", "Exact sparse search, checked and raced.", sparse_shapes.SPARSE, sparse_shapes.QUICK)

if __name__ == "__main__":
    sys.exit(command.main(FAMILY))
