"""The order saga on Temporal: workflow, activities, worker, client; and the ways in which it is done wrong."""
