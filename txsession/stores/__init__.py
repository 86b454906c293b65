"""
The stores that come with txsession, each alone with its driver.
"""
