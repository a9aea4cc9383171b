"""What an operator does: look whether writers keep the order, make and drop days, come back from a lost slot."""
