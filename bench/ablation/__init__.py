"""Which index for which data: a grid of ways to search one collection, each measured, judged and compared.
`bench.ablate` is the command."""
