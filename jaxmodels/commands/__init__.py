"""The commands as Python functions: one module for each, with its options.

The command line imports these modules for their options, so they import nothing heavy at their top.
"""
