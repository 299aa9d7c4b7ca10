"""Ray Serve: the champion behind the OpenAI chat API."""
