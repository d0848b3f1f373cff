"""The studio: a local page to pick a unit, watch its image form, change strengths on the way and keep what is good.

Each tab of a browser has a process of its own (`worker`), so that nobody's run stops another's; the server (`server`)
talks to them, guards its door (`guard`) and shows the page (`page`).  What may be read is listed by `files`.
"""
