"""What the experiment on Temporal is played on."""
