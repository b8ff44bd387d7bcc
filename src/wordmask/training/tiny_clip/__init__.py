"""Where the CLIP of the bundled models comes from: it learns from nothing, on Shapeland; nothing else needs this.

pair → what is trained · captions → the first recipe, pictures beside captions · naming → how well it names what it sees
· regions → the second recipe, where things are.
"""
