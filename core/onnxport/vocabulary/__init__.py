"""Terms that all rooms use: dtypes, opsets, argument checks, provenance, text of foreign origin."""
