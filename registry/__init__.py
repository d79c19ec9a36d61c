"""Version registry shared by the knowledge base, fine-tuning and the guard."""
