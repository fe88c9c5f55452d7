"""What the caller asked for, and how torch.export is brought to capture it."""
