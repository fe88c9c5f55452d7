"""The pipeline of passes over an ONNX model, and the steps that passes are made of."""
