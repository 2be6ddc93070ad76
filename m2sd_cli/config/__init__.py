"""The options of training: declared once, validated, and merged from data set, recipe, file and command line.

A field of PretrainConfig or DistillConfig is an option of the same name of the command, the function and a file.
Pydantic is imported for the first value that is checked, since help pages need the fields alone.
"""
