"""One trial from start to finish, without Ray."""
