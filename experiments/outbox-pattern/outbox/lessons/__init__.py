"""Ways side by side in one file, wrong and right, where that reads better."""
