"""What lasts while an export captures a model, one file a cause: changes to functions of torch, or to the model."""
