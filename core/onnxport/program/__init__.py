"""The exported model: run, save, load, other weights."""
