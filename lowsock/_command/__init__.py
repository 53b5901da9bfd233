# SPDX-License-Identifier: MIT
"""The `lowsock` command: does the library's main job on real sockets, then probes what this machine can do.

In: nothing; each part opens its own sockets. Out: rows of tables, which `lowsock.__main__` prints as text or JSON. Called by
that and by its own child process only. mainjob.py has the parts of the main job; probes.py runs all probes and describes
the environment; probes_unix.py, probes_ip.py, probes_error.py and probes_other.py are the tables of probes; probing.py is
what probes share; loopback.py opens pairs of sockets.
"""
