"""The studio: a local page to pick a unit, watch its image form, change strengths on the way and keep what is good.

Each address (`addresses`) leads to a workspace, which lives on while tabs come and go (`workspace`) and has a process
of its own (`worker`), so that nobody's run stops another's; the server (`server`) guards its door (`guard`), and a tab
shows a workspace (`page`).  What may be read is listed by `files`.
"""
