"""Running models beside each other: on onnxruntime, on torch, at other sizes; what a runtime lacks."""
