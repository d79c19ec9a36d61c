"""The OpenAI fine-tune path: export of chat rows, the job, and what the model learnt."""
