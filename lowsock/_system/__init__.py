# SPDX-License-Identifier: MIT
"""What the rest needs of the kernel, the compiled module and Python's sockets. The lowest wing: it imports no other.

In: arguments as the caller passed them, and what C answered. Out: a descriptor and its timeout, checked numbers, exceptions,
constants, layouts of structures. Any module may call it; only `ffi` imports the compiled module.

`ffi` has `ffi` and `lib`. `constants` and `layouts` read the compiled tables. `target` finds the descriptor and the timeout
of a socket, `socket_class` the class of plain sockets, `arguments` checks numbers; `spellings` refuses old spellings
and says what to write. `errors` turns -errno into an exception, and tells who raised one. `waiting` polls and retries until
a deadline. `unique` is the base of what has no copies. `exports` is for public modules, `annotations` for whoever reads
theirs, `types` for mypy and `lowsock.typing`.
"""
