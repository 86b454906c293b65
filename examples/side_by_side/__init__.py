"""
Express and Klein side by side, with the same sessions.
"""
