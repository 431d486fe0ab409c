"""``stamp-deploy view``: results in a browser, served by this machine to itself.

A small HTTP server on loopback hands out one page, the slide as tiles (tile_maker.py), the maps as numbers
(result_facts.py) and the statistics of drawn areas (region.py). Nothing is fetched from anywhere.
"""
