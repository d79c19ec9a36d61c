"""A fleet of replicas in virtual time: the real controller, enactor and saga over a simulated registry, network, disk.

loop      virtual time without file descriptors        disk      one replica's journal, and what a crash leaves of it
registry  the registry's rules in memory               network   delay, loss, lost answers, duplicates, partitions
fleet     replicas, their lives, operators, receivers  checks    what must hold at every moment and in the end
schedule  a seed, or a list of crash points            mutants   the saga broken by hand, each of which must be caught

python -m tests.sim --seeds 2000        random schedules          python -m tests.sim --crashes 2      exhaustive
python -m tests.sim --mutants           who catches what          python -m tests.sim --show 17        one run
"""
