"""The questions in the forms that other engines' own documentation teaches, a script an engine.

Each runs under the interpreter of that engine's environment, as `NAME_forms.py QUESTION OUT INPUT…`, and
writes what our job writes: lines of key, tab and value in part files of OUT.  A form is written with the
interface that the documentation shows for such a question, and tuned as far as it advises, no further.
"""
