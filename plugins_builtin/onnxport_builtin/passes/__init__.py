"""Steps over a translated model, one file each."""
