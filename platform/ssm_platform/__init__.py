"""The Ray side of SSM: corpora, plans, clips (Data), training (Train), search (Tune), evaluation, registry, reports."""
