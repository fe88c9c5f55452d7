"""The walk over a functional graph: each node to ONNX nodes, through the registry."""
