"""Programs that attack the machine they run on (tests/bad_input/test_hostile_code.py).

Every attack prints ESCAPED where it succeeds. `{outside}` is a folder of the test's with a file `secret`, `{tcp}` a
port that listens on this machine, `{home}` the user's home.
"""

from __future__ import annotations

from attnpo.sandbox.sandbox import End

# What follows "try:" prints ESCAPED unless it raises OSError.
TRY = """
import os, sys, socket, signal, shutil, struct, ctypes, subprocess
try:
    {}
    print('ESCAPED')
except OSError:
    pass
"""
LIBC = "libc = ctypes.CDLL(None, use_errno=True); "
FAILS = "; (_ for _ in ()).throw(OSError()) if r == -1 else 0"

REFUSED = {
    # processes
    "fork": "os.fork()",
    "vfork and exec": "subprocess.run(['/bin/true'])",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {{}})",
    "shell": "assert os.system('true') != 0; raise OSError",
    "exec": "os.execv('/bin/echo', ['echo', 'ESCAPED'])",
    "raw clone": LIBC + "r = libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0)" + FAILS,
    "raw clone3": LIBC + "r = libc.syscall(435, bytes(64), 64)" + FAILS,
    # other processes
    "kills its parent": "os.kill(os.getppid(), signal.SIGKILL)",
    "kills its group": "os.kill(0, signal.SIGKILL)",
    "kills everything": "os.kill(-1, signal.SIGKILL)",
    "kills itself to look like out of memory": "os.kill(os.getpid(), signal.SIGKILL)",
    "pidfd": "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGKILL)",
    "signals through a descriptor": "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "ptrace": LIBC + "r = libc.ptrace(16, os.getppid(), 0, 0)" + FAILS,
    "memory of its parent": LIBC + "r = libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0)" + FAILS,
    "writes to memory of its parent": "open(f'/proc/{{os.getppid()}}/mem', 'r+b')",
    "priority": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    # network
    "tcp": "socket.create_connection(('127.0.0.1', {tcp}))",
    "udp": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "dns": "socket.getaddrinfo('example.org', 80)",
    "socket pair": "socket.socketpair()",
    # files
    "writes outside": "open('{outside}/new', 'w')",
    "appends": "open('{outside}/secret', 'a')",
    "truncates": "os.truncate('{outside}/secret', 0)",
    "opens to truncate": "os.open('{outside}/secret', os.O_RDONLY | os.O_TRUNC)",
    "deletes": "os.remove('{outside}/secret')",
    "deletes a tree": "shutil.rmtree('{outside}')",
    "renames": "os.rename('{outside}/secret', '{outside}/new')",
    "links": "os.symlink('{outside}/secret', 'link')",
    "hard link": "os.link('{outside}/secret', 'link')",
    "makes a folder": "os.mkdir('{outside}/new')",
    "makes a fifo": "os.mkfifo('{outside}/new')",
    "changes the mode": "os.chmod('{outside}/secret', 0)",
    "changes the owner": "os.chown('{outside}/secret', 1, 1)",
    "changes the time": "os.utime('{outside}/secret')",
    "/tmp": "open('/tmp/attnpo-escaped', 'w')",
    "/dev/shm": "open('/dev/shm/attnpo-escaped', 'w')",
    "shared memory": "from multiprocessing.shared_memory import SharedMemory; SharedMemory('attnpo-escaped', True, 9)",
    "unnamed file": "os.open('/tmp', os.O_TMPFILE | os.O_RDWR)",
    "its own folder": "open('file', 'w')",
    "many files": "[open(str(number), 'w') for number in range(10**6)]",
    "huge file": "os.write(os.memfd_create('x'), bytes(2**20))",
    "writes to its input": "os.write(0, b'x')",
    "raw openat2": LIBC + "r = libc.syscall(437, -100, b'{outside}/new', struct.pack('3Q', 65, 384, 0), 24)" + FAILS,
    "io_uring": LIBC + "r = libc.syscall(425, 8, bytes(120))" + FAILS,
    # the machine
    "mount": LIBC + "r = libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)" + FAILS,
    "namespaces": LIBC + "r = libc.unshare(0x10000000)" + FAILS,
    "chroot": "os.chroot('/')",
    "becomes root": "os.setuid(0)",
    "keyring": LIBC + "r = libc.syscall(250 if os.uname().machine == 'x86_64' else 219, 0, -3, 0)" + FAILS,
    "undoes its end with the parent": LIBC + "r = libc.prctl(1, 0, 0, 0, 0)" + FAILS,
    "many descriptors": "[os.dup(0) for _ in range(10**6)]",
}
HIDDEN = {  # by Landlock
    "a file": "open('{outside}/secret').read()",
    "a folder": "os.listdir('{outside}')",
    "home": "os.listdir({home!r})",
    "/etc/passwd": "open('/etc/passwd')",
    "environment of its parent": "open(f'/proc/{{os.getppid()}}/environ', 'rb').read()",
    "other processes": "os.listdir('/proc')",
    "a disk": "open('/dev/vda', 'rb')",
    "/tmp": "os.listdir('/tmp')",
}
ENDS = {
    "infinite loop": ("while True: pass", End.TOO_SLOW),
    "catches everything": (
        "import signal\nfor number in (signal.SIGXCPU, signal.SIGTERM, signal.SIGALRM, signal.SIGINT):\n"
        "    signal.signal(number, signal.SIG_IGN)\nwhile True:\n    try:\n        while True: pass\n"
        "    except BaseException: pass",
        End.TOO_SLOW,
    ),
    "sleeps": ("import time; time.sleep(1000)", End.TOO_SLOW),
    "stops itself": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", End.TOO_SLOW),
    "never exits": ("import atexit, time; atexit.register(time.sleep, 1000)", End.TOO_SLOW),
    "closes its output and goes on": ("import os\nos.closerange(0, 9)\nwhile True: pass", End.TOO_SLOW),
    "a C call that never returns": ("10**10**10", End.TOO_SLOW),
    "slow regex": ("import re; re.match('(a|a)*b', 'a' * 99)", End.TOO_SLOW),
    "fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", End.TOO_SLOW),
    "raises its limits": (
        "import resource\nfor kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS):\n"
        "    resource.setrlimit(kind, (-1, -1))\nwhile True: pass",
        End.TOO_SLOW,
    ),
    "prints gigabytes": ("while True: print('x' * 10**6)", End.TOO_MUCH_OUTPUT),
    "prints gigabytes of errors": ("import sys\nwhile True: print('x' * 10**6, file=sys.stderr)", End.TOO_MUCH_OUTPUT),
    "writes gigabytes to the result": ("import os\nwhile True: os.write(3, bytes(10**6))", End.TOO_MUCH_OUTPUT),
    "thread bomb": (
        "import threading, time\nthreading.stack_size(32768)\n"
        "while True: threading.Thread(target=time.sleep, args=(99,)).start()",
        End.TOO_MANY_THREADS,
    ),
    "allocates": ("x = bytearray(2**33)", End.CRASHED),
    "allocates bit by bit": ("x = []\nwhile True: x.append(bytes(2**20))", End.CRASHED),
    "maps shared memory": ("import mmap\nx = [mmap.mmap(-1, 2**26) for _ in range(99)]", End.CRASHED),
    "segfault": ("import ctypes; ctypes.string_at(0)", End.CRASHED),
    "aborts": ("import os; os.abort()", End.CRASHED),
    "deep recursion": ("def f(): f()\nf()", End.CRASHED),
    "deep recursion in C": (
        "import sys, functools; sys.setrecursionlimit(10**9)\nf = functools.cache(lambda n: f(n + 1))\nf(0)",
        End.CRASHED,
    ),
    "deep expression": ("(" * 10**5, End.CRASHED),
    "too deep for the compiler": ("x = " + "-" * 10**6 + "1", End.CRASHED),
    "leaves at once": ("import os; os._exit(3)", End.CRASHED),
    "no program": ("This is not Python.", End.CRASHED),
    "null bytes": ("print('\0')", End.CRASHED),
    "lone surrogate": ("print('\ud800')", End.CRASHED),
    "raises something odd": ("class E(BaseException):\n    def __str__(self): raise self\nraise E", End.CRASHED),
    "breaks its streams": ("import sys; sys.stdout = sys.stderr = None; 1 / 0", End.CRASHED),
    "raw system call of 32 bits": ("import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)", End.FINISHED),
    "ends well at once": ("import os; os._exit(0)", End.FINISHED),
    "binary garbage": ("import os; os.write(1, bytes(range(256)))", End.FINISHED),
    "no newline": ("print(42, end='')", End.FINISHED),
    "100,000 characters": ("x = 0\n" + "x += 1\n" * 14_300 + "print(x)", End.FINISHED),
}
