"""The four services of the shop: what each does in one local transaction, and how it undoes it."""
