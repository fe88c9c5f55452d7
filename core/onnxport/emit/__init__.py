"""What translations emit ONNX nodes with: the builder, sizes, tensors, schemas, weights, local functions."""
