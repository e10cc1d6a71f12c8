"""The Ray side of SSM: corpora, plans and clips (Data), training (Train), search (Tune), evaluation, registry, reports."""
