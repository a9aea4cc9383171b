"""The popular wrong ways, each as tutorials show it."""
