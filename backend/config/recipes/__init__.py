# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes: what a quality such as `draft` means for each family of models, one module for each family.

`starter` and `clip` hold configurations that were found by experiment. The others are tables of published numbers, each
with its source and what could not be carried over (`recipe.Recipe`). To add a quality to a family, add an entry to its
`RECIPES`; `presets` collects them.
"""
