"""What engines learn before they draw: where to start, step sizes, metrics, trajectory lengths."""
