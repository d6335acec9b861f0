"""The commands as Python functions: one module for each, with its options.

The command line imports these modules when it starts, so those with options import nothing heavy at their top.
"""
