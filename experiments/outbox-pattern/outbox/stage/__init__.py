"""What experiments and tests need to run, kill and watch."""
