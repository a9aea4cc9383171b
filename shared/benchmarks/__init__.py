"""What the house itself costs. Run them by path on a quiet machine; they are experiments, with claims and a record."""
