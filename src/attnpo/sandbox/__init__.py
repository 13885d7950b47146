"""Runs untrusted Python programs: the code in a model's answer.

Every run is one process, forked from a warm interpreter (:mod:`.server`) and confined before the first byte of the
program is compiled (:mod:`.confine`). Guarantees:

On Linux, x86-64 or ARM64, for root and for ordinary users, in containers too, without any privilege:

- Only listed system calls work (:mod:`.confine`). There are no other processes (fork and exec fail, so nothing can
  outlive a run), no sockets of any kind, no signals to others, no debugging, mounting or raising of limits. No file can
  be created, changed or removed, anywhere, by any route: files open for reading only.
- CPU time, address space, threads, output and wall time are limited. A run ends by SIGKILL, which nothing can catch.
- All capabilities are dropped. Environment and working directory are empty. A run has no descriptors except its own
  input, output and result; it dies with the server, and the server with the process that started it.
- Expected outputs never enter the server: a program cannot read them there, and its exit status is ignored.

In addition, where the kernel has Landlock (5.13 or newer, and not disabled):

- Only the Python installation and the system's shared libraries can be read: no home, /proc, /tmp or data set.

Without Landlock a program can read all files that the user can read, such as one with the expected outputs; its output
is the only way to pass anything on. `Sandbox.isolation` names the isolation in force.

Elsewhere (another system or processor, or a container that refuses seccomp) `Sandbox` raises, unless it is created with
``allow_weaker=True``: then only the limits that the system enforces apply, and programs must be trusted.

Not covered: bugs of the kernel, and timing side channels between programs.
"""
