"""What SQLAlchemy's own tests ask of pools, asked of ours, without a server."""
