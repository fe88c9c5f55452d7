"""The pipeline of passes over an ONNX model, and the names of the steps that passes are made of."""
