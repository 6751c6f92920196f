"""Hyper-parameters as data, one TOML file a method, every value with its source.

`recipe("dsa", "cifar10", 10)` gives the values for a method, a data set and a number of images a class;
`quick.toml` lays shorter runs over them. The format of the files is described in tables.py, the keys in keys.toml.
"""

from distill.recipes.recipe import Recipe, list_recipes, recipe, recipe_methods, show
from distill.recipes.tables import Key, add_recipe_file, library

__all__ = ["Key", "Recipe", "add_recipe_file", "library", "list_recipes", "recipe", "recipe_methods", "show"]
