"""Folders of slides: planned, shared out to worker processes, and accounted for.

inputs -> plan -> board (claims, ledger) -> executors -> supervisor -> worker (steps) -> report
"""
