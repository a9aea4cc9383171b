"""Ways side by side, the wrong beside the right."""
