"""The observed process's side: an agent that answers at a socket, and what it answers."""
