"""The paid model behind judging and synthesis: client, reply store, budget, and the offline stand-ins."""
