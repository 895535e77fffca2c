"""What is timed: searches, codes, builds, saves and loads, a training step; each makes the entries of a heat."""
