"""As whom a registry is asked: names and passwords from files that others write, and from their helper programs."""
