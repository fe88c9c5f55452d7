"""A pack for onnxport: `ops` is the library, `onnx` the plugin, which is all that an export imports."""
