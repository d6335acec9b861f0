"""Devices and processes: mesh axes, rules by path, placement, jit or pmap, and processes that train as one."""
