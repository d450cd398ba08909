"""The API server's side: writing to objects, events, the mounted Secret, kopf's settings."""
