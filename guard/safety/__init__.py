"""Safety signals: injection, personal data in questions, leaked prompts, abuse, access tags. Pure, and import-light.

hidden -> cues -> linear -> injection | context_injection      leak   toxicity   acl
                                 \\______ findings (off the path) ______/
screen: the same detectors before the upstream, for checks in mode `enforce`
"""
