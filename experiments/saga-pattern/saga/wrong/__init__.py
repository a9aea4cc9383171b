"""Popular ways that fail, as tutorials show them. Each is a class or a function of its own."""
