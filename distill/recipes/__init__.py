"""Hyper-parameters as data, declared with each method, every value with its source.

`recipe("dsa", "cifar10", 10)` gives the values for a method, a data set and a number of images a class. How a method
declares them is described in declared.py.
"""

from distill.recipes.declared import declared
from distill.recipes.keys import Key, show
from distill.recipes.recipe import Recipe, list_recipes, recipe

__all__ = ["Key", "Recipe", "declared", "list_recipes", "recipe", "show"]
