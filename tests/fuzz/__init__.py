"""Fuzzing of everything that reads bytes from outside: `python -m fuzz --help`, docs/fuzzing.md.

harness.py     what a harness is, and helpers that turn one input into parts
targets/       the harnesses, one module per area; `targets.all_harnesses()` is the list
corpus/        seeds, one folder per harness, each file named for what it shows
mutate.py      makes new inputs of old ones (pure, seeded)
engine.py      runs inputs of our own engine in one process, with limits and line coverage
libfuzzer.py   the same by atheris, where it is installed
campaign.py    a process per harness, several at once; collects what they report
seeds.py       writes the corpus anew from real encoders and our own builders
"""
