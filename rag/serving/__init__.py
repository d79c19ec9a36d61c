"""The answer path over HTTP.

app      the application: its paths, one for each knowledge base, and its routes
asking   what a request asks, and what it says of the asker
telling  the answer as an object or as events, its source, and health
"""
