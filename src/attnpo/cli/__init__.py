"""The commands of `attnpo`: each file parses the options of one command and calls one function."""
