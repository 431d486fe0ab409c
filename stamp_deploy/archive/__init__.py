"""Image archives (PACS, VNA): slides come from them and results go to them, by DICOMweb or DIMSE.

The only package of stamp_deploy that talks to a network, and only the commands `dicomweb` and `dimse` load it. Scoring
never does.
"""
