"""What the agent says of itself: log lines and metrics. Knows nothing of images, and no room above it."""
