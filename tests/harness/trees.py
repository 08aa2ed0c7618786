"""Syntax trees of files, each of which a process of tests parses once, with the scripts of .ci/."""

from harness import cicode

_trees = cicode.load("trees")
parsed, tree_of, nodes_of = _trees.parsed, _trees.tree_of, _trees.nodes_of
