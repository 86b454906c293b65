"""
What a session costs: server CPU a request, and memory a session.

C{python -m tests.benchmarks} measures and reports; README.md beside this file
says how to read it.
"""
