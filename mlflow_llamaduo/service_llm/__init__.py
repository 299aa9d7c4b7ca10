"""The paid model behind judging and synthesis: client, reply store, budget, and the offline stand-ins."""

import os

# Whichever of our modules imports litellm first: without this it fetches a price list, and waits where it cannot.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
