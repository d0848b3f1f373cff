"""The atlas: every unit of some layers of a network, made, kept and looked up.

A plan says what is to be made, a store keeps it, and workers make what the store lacks.
"""
