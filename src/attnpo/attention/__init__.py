"""How much attention the final answer pays each reasoning step, read off inside a normal forward."""
