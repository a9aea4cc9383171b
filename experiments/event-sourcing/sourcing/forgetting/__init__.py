"""A person's data in a log that forgets nothing: which fields it is, and a key for each person."""
