"""What callers give: vectors, tokens, sparse and sliced rows, lists, filters."""
