"""`spfem evaluate real`: films of real faces, edited into six emotions and scored by the open judges.

job.py       the command: edit, score, write down
films.py     which films, whose they are, and where their edits lie
measures.py  an edit against its source, frame by frame: what changed that should not have
scores.py    the scores of one edit, and of the source unchanged
figures.py   means with intervals over films, bars, tables for a terminal
report.py    summary.json, edits.json, report.html
"""
