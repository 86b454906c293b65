"""
Small applications that show how txsession is used.  Each runs by itself, as in
C{python -m examples.counter}.
"""
