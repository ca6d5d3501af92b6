"""Real servers for the tests, and a gate before one: started in empty folders, gone with them."""
