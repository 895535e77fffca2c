"""Collections to search: real ones in the formats of the field, and made-up ones fitted to them. `opening.opened` reads
what ``--data`` names. Beside `bench.workloads.data`, which makes the corpora of the microbenchmarks."""
