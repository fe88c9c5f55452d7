"""What all rooms speak of: dtypes, opsets, argument checks, provenance, text of foreign origin."""
