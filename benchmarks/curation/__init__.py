"""The parts of the curation benchmark; benchmarks/curate.py says what is measured."""
