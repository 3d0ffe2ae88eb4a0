"""The commands of golf-launch, a module each: `add_arguments(parser)` and `main(arguments)`.

Modules import what is heavy inside their functions, so that asking for help or a state is quick.
"""
