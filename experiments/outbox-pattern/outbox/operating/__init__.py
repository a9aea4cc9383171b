"""What an operator does: check that writers keep the order, create and drop days, recover from a lost slot."""
