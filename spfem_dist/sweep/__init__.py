"""Searching over the settings of a recipe: what is searched (`space`), what became of it (`record`), how trials run (`trial`, `search`)."""

#: How a trial may have ended.
FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"
#: How a trial ends that never gives the metric; the sweep ends with it.
NO_FIGURE = "no figure"
