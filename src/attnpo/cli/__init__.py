"""The commands of `attnpo`: a file parses its options and calls one function."""
