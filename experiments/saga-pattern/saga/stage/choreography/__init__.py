"""Where choreographies are played: services as processes, short plays, changes."""
