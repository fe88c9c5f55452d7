"""What an ``ONNXProgram`` does, a file a concern: running, saving, loading, other weights, copies."""
