"""The request: what a caller asks for. Arguments and their leaves, the call of the model, dynamic dimensions."""
