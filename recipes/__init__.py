"""Recipes to copy and edit, and the demo's world, general tasks and base model (installed as `tutelage_recipes`)."""
