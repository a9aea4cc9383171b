"""A person's data in a log that forgets nothing: which fields are personal, and a key for each person."""
