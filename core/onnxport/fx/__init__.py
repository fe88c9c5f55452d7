"""What is done to the captured FX graph before it is translated."""
