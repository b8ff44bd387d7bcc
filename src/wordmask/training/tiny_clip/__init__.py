"""Where the tiny models' CLIP comes from: it is trained here from nothing, on Shapeland, and nothing else needs this.

pair.py what is trained · captions.py pictures beside captions, the first recipe · naming.py how well it names what it
sees · regions.py where things are, the second recipe
"""
