"""How it is timed, judged and kept."""
