"""Programs and states, read: FLOPs, instructions of the compiler, modules, memory, what is not finite."""
