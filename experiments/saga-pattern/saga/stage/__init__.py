"""What experiments and the benchmark need to run, kill, watch and measure. Nobody copies it."""
