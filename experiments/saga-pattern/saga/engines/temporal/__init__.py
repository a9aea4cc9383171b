"""The order saga on Temporal: workflow, activities, worker, client. The wrong ways are in saga/wrong/temporal_*.py."""
