"""``python -m benchmarks.soak``: a camera with random faults at 30 Hz against the localizer, each a process of its own.

Judged from outside, by what the localizer publishes: it never ends, its memory does not grow, it names every fault in
``status`` or ``/diagnostics``, and it answers again within a second of the fault's end.
"""
