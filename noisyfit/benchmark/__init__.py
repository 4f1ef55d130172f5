"""Settings of the papers, and what it takes to repeat their experiments."""
