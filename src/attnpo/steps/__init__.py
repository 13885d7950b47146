"""The thinking text: where it is, how it is cut into steps, and which tokens a step has."""
