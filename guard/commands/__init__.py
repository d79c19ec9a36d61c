"""One module per group of commands; each parses its arguments and calls one function."""
