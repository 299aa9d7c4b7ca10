"""What MLflow finds by entry points. It may import them when it starts: heavy libraries are imported where used."""
