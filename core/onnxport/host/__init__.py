"""What a plugin is to the core: how its hooks are called, what it may return, where its passes run."""
