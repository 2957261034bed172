"""The node: a thin shell around the core.

What it is made of: ``process`` starts it, ``node`` holds it together in the states of ``lifecycle``, with
``parameters``. ``maps`` loads maps; ``cameras`` (whose ``subscriptions`` can explain their silence) gathers images;
``worker`` is the thread on which ``pipeline`` takes them through ``estimator`` to what is published. ``requests`` is
what others may ask of it, ``debug`` what people look at, ``messages`` translates.

TF: ``tf`` listens and sends, ``odometry`` reads, ``broadcast`` keeps up the transform that is published,
``tf_conflicts`` notices others who publish it. Health: ``health`` counts, ``reporter`` tells, ``logs`` passes on the
package's log.
"""

from dimm_ros.dependencies import need

need("pydantic", "2")  # Ubuntu 24.04 has 1.10
