"""Records: what plugins bring, as data. Translations, stages, what operators mean, what is emitted, runtimes."""
