"""What runs inside argilla-server's own environment: its launcher and a search engine that needs no search server.

Nothing of the rest of the house can be imported here, nor this package from there: the two environments differ.
"""
