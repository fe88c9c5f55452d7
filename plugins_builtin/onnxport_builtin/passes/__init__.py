"""Steps over the ONNX model that make it leaner, one file a pass."""
