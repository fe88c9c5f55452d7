"""What ``onnxport.testing`` has, and a plugin for pytest: tests of translations, packs and the files that they give."""
