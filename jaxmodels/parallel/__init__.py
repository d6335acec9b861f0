"""Devices and processes: mesh axes, rules by path, placement, jit or pmap, processes that train as one."""
