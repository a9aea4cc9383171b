"""The example: orders, accounts and customers, and read models of them."""
