"""The built-in task: arithmetic stories, and over-thinking traces about them with known step labels."""
