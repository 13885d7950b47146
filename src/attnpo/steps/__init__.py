"""The thinking text of a response: where it is, how it is cut into steps, and the tokens of each step."""
