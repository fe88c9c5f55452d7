"""What a caller asks for, in one form: arguments and their leaves, the call of the model, dynamic dimensions."""
