"""One file a revision. They are history: a table changes by a new file, never by an edit."""
