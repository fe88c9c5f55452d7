"""The ONNX graph under construction: its values, scopes, schemas and local functions."""
