"""The stand-ins for a service LLM, so that everything runs without a key or a network; they are no language models.

One module a task holds the grammar that `offline/teacher` writes its pairs by; `judges` holds what `offline/judge`
scores each task by.
"""
