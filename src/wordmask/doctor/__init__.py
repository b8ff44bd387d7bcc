"""`wordmask doctor`: what this machine has, what will be used, what is cached, what is missing and how to get it.

examine → looks, quickly and without ever failing · findings → what it can find, for programs and for people.
"""
