"""What experiments and benchmarks need to run, kill, watch and measure."""
