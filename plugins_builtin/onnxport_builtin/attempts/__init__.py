"""A model and its example arguments as an ExportedProgram, with names for its inputs, outputs and dimensions."""
