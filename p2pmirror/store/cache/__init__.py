"""The node's own cache: what it fetched for others, in one directory, verified, bounded, and its own to lose."""
