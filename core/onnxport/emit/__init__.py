"""The builder of ONNX graphs and its parts: frames, sizes, tensors, schemas, weights, local functions."""
