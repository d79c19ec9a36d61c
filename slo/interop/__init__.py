"""slo.yaml to and from what other tools read: OpenSLO v1 and Sloth prometheus/v1.

    promises   what an objective promises in terms that others have: a share of good events over a window
    openslo    SLO, SLI and Service documents        sloth   one file per service

Everything that another format has no word for is kept beside it (an annotation with the objective as written) and
named, one line per objective; nothing is dropped without a word.
"""
