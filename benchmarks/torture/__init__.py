"""What becomes of pools whose clients, workers and managers are killed; see ``__main__``."""
