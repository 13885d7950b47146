"""The built-in task: arithmetic stories, and traces that think too long about them with known step labels."""
