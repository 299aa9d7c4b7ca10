"""Each stage alone: files in, files out."""
