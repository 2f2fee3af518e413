"""Green threads in gdb: `weald threads`, `weald bt ID`, `weald where`, `weald switch ID`.

    gdb -x weald-gdb.py PROGRAM CORE
    gdb -x weald-gdb.py -p PID
    (gdb) source weald-gdb.py

Works with a process that is stopped and with a core file, for programs with and without debug information (names of functions need symbols,
lines need line tables). Changes nothing in the process, and runs nothing in it. x86-64 and AArch64, Linux. gdb 10 or later.

How it works. The section `weald_debugger` of the program has a table (`watch/debugger.rs`), which says where the lists of green threads
are, and where fields lie in a thread's header. A green thread that does not run has left its registers on its stack
(`parts/coroutine/x86_64.rs`, `aarch64.rs`). To show its calls, an unwinder tells gdb that these registers are those of the caller of the
innermost frame of the selected OS thread. gdb then unwinds the green thread's stack as any other. No register is written.

A thread that has never waited is in no list, so it is not shown. It runs on an OS thread: `thread apply all bt` shows it.
"""

import re
import struct
import time

import gdb
import gdb.unwinder

# The version of the table that this script reads: `VERSION` in `watch/debugger.rs`.
VERSION = 1
MAGIC = b"weald table\0"

# `Awaited` by its numbers, `green/awaited.rs`; a test compares them.
AWAITED = [
    "other", "unpark", "time", "mutex", "read_lock", "write_lock", "condvar", "semaphore", "once", "event",
    "promise", "wait_group", "join", "children", "message", "room", "several", "descriptor", "futex",
]

# Bits of the state word, `parts/state.rs`.
PARKED = 1
DONE = 1 << 1
IN_PLACE = 1 << 8

# `ThreadKind`: runs on carriers, or has an OS thread for itself.
GREEN, OWN_THREAD = 0, 1

# The frames behind this function are not the user's.
END = "run_green_thread_body"
# So many threads are unwound at most, unless all are asked for.
UNWOUND = 2000
# Members of a group that are listed.
MEMBERS = 8
DEPTH = 200

# Where the saved registers of a suspended thread lie, in words from where `resume_at` leads, and how many words there are.
REGISTERS = {
    "x86_64": ("rip", "rsp", {"rip": 1, "rbp": 2, "rbx": 3}, 4),
    "aarch64": ("pc", "sp", {"x19": 0, "x29": 1, "pc": 2}, 4),
}


class Failure(gdb.GdbError):
    """What the user is told instead of a result."""


def memory(address, size):
    return bytes(gdb.selected_inferior().read_memory(address, size))


def words(address, count):
    return struct.unpack("<%dQ" % count, memory(address, 8 * count))


def word(address):
    return words(address, 1)[0]


def machine():
    name = gdb.selected_inferior().architecture().name()
    if name.startswith("i386:x86-64"):
        return "x86_64"
    if name.startswith("aarch64"):
        return "aarch64"
    raise Failure("weald: no green threads are known on %s" % name)


class Table:
    """One table of the section: `Table` in `watch/debugger.rs`."""

    FIELDS = ["id", "state", "on", "time", "end", "stack_pages", "kind", "next", "cold", "name_in_cold", "resume_at"]

    def __init__(self, data):
        self.runtimes, self.count = struct.unpack_from("<QQ", data, 24)
        places = struct.unpack_from("<%dQ" % len(self.FIELDS), data, 40)
        for field, place in zip(self.FIELDS, places):
            setattr(self, field, place)


def tables():
    """The tables of all copies of weald in the process."""
    found = []
    files = gdb.execute("info files", to_string=True)
    for begin, end in re.findall(r"(0x[0-9a-f]+) - (0x[0-9a-f]+) is weald_debugger", files):
        begin, end = int(begin, 16), int(end, 16)
        data = memory(begin, end - begin)
        at = data.find(MAGIC)
        while at >= 0:
            version, size = struct.unpack_from("<IQ", data, at + 12)
            if version != VERSION:
                raise Failure("weald: this script is of another version of weald than the program: table %d, script %d"
                              % (version, VERSION))
            found.append(Table(data[at:at + size]))
            at = data.find(MAGIC, at + size)
    if not found:
        raise Failure("weald: the program has no section `weald_debugger`: it does not use weald, or an older version")
    return found


class Runtime:
    def __init__(self, address):
        name, length, self.heads, self.stride, self.shards, self.started = words(address, 6)
        self.name = memory(name, length).decode("utf-8", "replace")


class Thread:
    """A green thread, as its header tells."""

    def __init__(self, table, runtime, header):
        self.runtime, self.header = runtime, header
        self.id = word(header + table.id)
        self.state = word(header + table.state)
        on = word(header + table.on)
        self.began = word(header + table.time)
        self.end = word(header + table.end)
        self.size = struct.unpack("<I", memory(header + table.stack_pages, 4))[0]
        self.size = (self.size & 0x7fffffff) << 12
        self.kind = memory(header + table.kind, 1)[0]
        self.next = word(header + table.next)
        self.is_limited = bool(on >> 63)
        number = on >> 56 & 0x7f
        self.awaited = AWAITED[number] if number < len(AWAITED) else "other"
        self.on = on & (1 << 48) - 1
        self.name = None
        cold = word(header + table.cold)
        if cold:
            text, length = words(cold + table.name_in_cold, 2)
            if text:
                self.name = memory(text, length).decode("utf-8", "replace")
        self.resume_at = None
        if self.kind == GREEN and table.resume_at != 2 ** 64 - 1:
            resume_at = word(header + table.resume_at)
            if self.end - self.size <= resume_at < self.end:
                self.resume_at = resume_at
        # The OS thread that runs it: a `gdb.InferiorThread`.
        self.os_thread = None

    @property
    def waits(self):
        return bool(self.state & PARKED)

    @property
    def is_suspended(self):
        """Its registers are on its stack."""
        return self.os_thread is None and self.resume_at is not None

    def label(self):
        return "#%d %s" % (self.id, self.name) if self.name else "#%d" % self.id

    def doing(self):
        if not self.waits:
            return "ready to run" if self.os_thread is None else "runs"
        if self.awaited == "unpark":
            return "parks"
        return "waits for %s" % self.awaited.replace("_", " ")

    def holder(self):
        """The mark of the thread that has the lock: `green/awaited.rs`."""
        offset = {"mutex": 4, "once": 4, "read_lock": 8, "write_lock": 8}.get(self.awaited)
        if not self.waits or offset is None or not self.on:
            return None
        try:
            return struct.unpack("<I", memory(self.on + offset, 4))[0] or None
        except gdb.MemoryError:
            return None

    def describe(self, by_mark):
        text = self.doing()
        if self.waits and self.awaited == "join":
            target = by_mark.get(("header", self.on))
            text = "waits for the end of %s" % target.label() if target else text
        elif self.waits and self.on:
            text += " 0x%x" % self.on
            mark = self.holder()
            if mark:
                holder = by_mark.get(mark)
                text += " that %s has" % (holder.label() if holder else "a thread that is not listed")
        if self.waits and self.is_limited and self.awaited != "time":
            text += ", with a limit"
        if self.os_thread is not None:
            text += " on thread %d (LWP %d)" % (self.os_thread.num, self.os_thread.ptid[1])
        return text + self.since()

    def since(self):
        if not self.waits:
            return ""
        if is_live():
            now = time.clock_gettime(time.CLOCK_MONOTONIC) * 1000
            return ", for %.3f s" % (max(0, now - self.runtime.started - self.began) / 1000)
        return ", since %.3f s after the runtime's start" % (self.began / 1000)


def is_live():
    """The process is one of this machine, so its clock is ours. False for a core file."""
    connection = getattr(gdb.selected_inferior(), "connection", None)
    return connection is not None and connection.type == "native"


def os_threads():
    """Stack pointers of the OS threads, each with its thread."""
    before = gdb.selected_thread()
    if before is None:
        raise Failure("weald: there is no process and no core file")
    pointer = REGISTERS[machine()][1]
    found = []
    try:
        for thread in gdb.selected_inferior().threads():
            if thread.is_valid() and thread.is_stopped():
                thread.switch()
                found.append((int(gdb.newest_frame().read_register(pointer)) & 2 ** 64 - 1, thread))
    finally:
        before.switch()
    return sorted(found, key=lambda pair: pair[0])


def all_threads():
    """All green threads that have left their stack at least once."""
    LOOK.leave()
    found, pointers = [], os_threads()
    for table in tables():
        for index in range(table.count):
            runtime = Runtime(table.runtimes + index * 48)
            for shard in range(runtime.shards):
                header, known = word(runtime.heads + shard * runtime.stride), set()
                # A process that was stopped while it changed the list may show a circle.
                while header and header not in known:
                    known.add(header)
                    try:
                        thread = Thread(table, runtime, header)
                    except gdb.MemoryError:
                        break
                    header = thread.next
                    if not thread.state & DONE:
                        found.append(thread)
    for thread in found:
        below = [pair for pair in pointers if pair[0] < thread.end]
        # An own thread has the stack of its OS thread, which is the next one below its end.
        if below and (thread.kind == OWN_THREAD or below[-1][0] >= thread.end - thread.size):
            thread.os_thread = below[-1][1]
    return sorted(found, key=lambda thread: thread.id)


def marks(threads):
    by_mark = {thread.id & 2 ** 32 - 1: thread for thread in threads}
    by_mark.update({("header", thread.header): thread for thread in threads})
    return by_mark


def chosen(argument):
    """The thread with a number or a name."""
    argument = argument.strip().lstrip("#")
    if not argument:
        raise Failure("weald: which green thread? Give its number or its name; `weald threads` has them")
    threads = all_threads()
    fits = [thread for thread in threads if str(thread.id) == argument] or \
           [thread for thread in threads if thread.name == argument]
    if not fits:
        raise Failure("weald: there is no green thread %s, or it has never waited" % argument)
    if len(fits) > 1:
        raise Failure("weald: %d green threads have that name: %s"
                      % (len(fits), ", ".join("#%d" % thread.id for thread in fits[:20])))
    return fits[0]


class FrameId:
    def __init__(self, stack, code):
        self.sp, self.pc = stack, code


class Look(gdb.unwinder.Unwinder):
    """Shows the stack of a green thread as that of the selected OS thread: behind its innermost frame."""

    def __init__(self):
        super().__init__("weald")
        self.registers = None

    def enter(self, thread):
        self.leave()
        code, stack, places, count = REGISTERS[machine()]
        frame = gdb.newest_frame()
        saved = words(thread.resume_at, count)
        self.code, self.stack = code, stack
        # By these the innermost frame is known.
        self.at = tuple(int(frame.read_register(name)) & 2 ** 64 - 1 for name in (code, stack))
        self.registers = {name: saved[place] for name, place in places.items()}
        self.registers[stack] = thread.resume_at + 8 * count
        gdb.invalidate_cached_frames()

    def leave(self):
        if self.registers is not None:
            self.registers = None
            gdb.invalidate_cached_frames()

    def __call__(self, frame):
        if self.registers is None:
            return None
        here = {name: frame.read_register(name) for name in self.registers}
        if tuple(int(here[name]) & 2 ** 64 - 1 for name in (self.code, self.stack)) != self.at:
            return None
        # gdb refuses a caller whose stack is below that of the frame. Below this one there is none.
        lowest = gdb.Value(8).cast(here[self.code].type)
        info = frame.create_unwind_info(FrameId(lowest, here[self.code]))
        for name, value in self.registers.items():
            info.add_saved_register(name, gdb.Value(value).cast(here[name].type))
        return info

    def frames(self, thread):
        """The frames of a suspended thread, the innermost first, inlined ones among them."""
        self.enter(thread)
        frame, count = gdb.newest_frame(), 0
        first = self.registers[self.code]
        while frame is not None and frame.pc() != first:
            frame = frame.older()
        while frame is not None and count < DEPTH:
            yield frame
            frame, count = frame.older(), count + 1


LOOK = Look()
gdb.unwinder.register_unwinder(None, LOOK, replace=True)


def call(frame):
    """One frame as text, and the bare name of its function."""
    name = frame.name()
    if name is None:
        return "0x%x" % frame.pc(), ""
    name = re.sub(r"::h[0-9a-f]{16}$", "", name)
    place = frame.find_sal()
    if place is not None and place.symtab is not None and place.line:
        return "%s at %s:%d" % (name, place.symtab.filename, place.line), name
    return name, name


def calls(thread):
    """The calls of a suspended thread as text, from the one that waits to the user's closure."""
    found = []
    try:
        for frame in LOOK.frames(thread):
            text, name = call(frame)
            if END in name:
                break
            found.append((text, name))
    except gdb.error as error:
        found.append(("(gdb cannot go on: %s)" % error, ""))
    finally:
        LOOK.leave()
    left = [index for index, (_, name) in enumerate(found) if name.endswith("switch_out")]
    return tuple(text for text, _ in found[left[0] + 1 if left else 0:])


class Shapes:
    """Calls of threads that wait at the same place. A thread whose stack has the same return addresses at the same places as
    another one has the same calls, so gdb unwinds only one of them."""

    def __init__(self):
        self.known = {}
        self.unwound = 0

    def calls(self, thread, limit):
        first = word(thread.resume_at + 8 * REGISTERS[machine()][2][REGISTERS[machine()][0]])
        size = thread.end - thread.resume_at
        stack = memory(thread.resume_at, min(size, 1 << 20))
        for length, returns, found in self.known.get(first, []):
            if length == size and all(stack[at:at + 8] == code for at, code in returns):
                return found
        if self.unwound >= limit:
            return None
        self.unwound += 1
        returns = self.returns(thread, stack)
        found = calls(thread)
        if returns:
            self.known.setdefault(first, []).append((size, returns, found))
        return found

    def returns(self, thread, stack):
        """Where on the stack the return addresses lie; none if that is not clear."""
        found, before = [], None
        is_x86 = machine() == "x86_64"
        try:
            for frame in LOOK.frames(thread):
                if frame.type() == gdb.INLINE_FRAME:
                    continue
                if before is not None:
                    # x86-64: the call has pushed it. AArch64: it is in the frame record.
                    at = int(frame.read_register("rsp")) - 8 if is_x86 else int(before.read_register("x29")) + 8
                    code = struct.pack("<Q", frame.pc())
                    at -= thread.resume_at
                    if at < 0 or stack[at:at + 8] != code:
                        return None
                    found.append((at, code))
                if END in (frame.name() or ""):
                    return found
                before = frame
        except gdb.error:
            pass
        finally:
            LOOK.leave()
        return None


class Weald(gdb.Command):
    """Green threads of weald: `weald threads`, `weald where`, `weald bt ID`, `weald switch ID`."""

    def __init__(self):
        super().__init__("weald", gdb.COMMAND_STACK, prefix=True)


class Threads(gdb.Command):
    """Lists the green threads that have waited at least once: what each does, and for how long."""

    def __init__(self):
        super().__init__("weald threads", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        threads = all_threads()
        by_mark, runtime = marks(threads), None
        for thread in sorted(threads, key=lambda thread: (thread.runtime.heads, thread.id)):
            if runtime is not thread.runtime:
                runtime = thread.runtime
                count = sum(other.runtime is runtime for other in threads)
                print("%s: %d green threads" % (runtime.name, count))
            print("  %s %s" % (thread.label(), thread.describe(by_mark)))
        if not threads:
            print("no green thread has waited yet")


class Where(gdb.Command):
    """Shows the green threads by groups that are at the same place, with the calls that led there. Unwinds as many as 2000 different stacks;
    `weald where all` unwinds all."""

    def __init__(self):
        super().__init__("weald where", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        threads, shapes = all_threads(), Shapes()
        limit = 2 ** 63 if argument.strip() == "all" else UNWOUND
        groups, others = {}, 0
        for thread in threads:
            if thread.is_suspended:
                found = shapes.calls(thread, limit)
                if found is None:
                    others += 1
                    continue
            else:
                found = ()
            groups.setdefault((thread.doing(), found), []).append(thread)
        by_mark = marks(threads)
        for (doing, found), members in sorted(groups.items(), key=lambda group: -len(group[1])):
            if len(members) == 1:
                print("1 %s: %s" % (members[0].describe(by_mark), members[0].label()))
            else:
                names = ", ".join(thread.label() for thread in members[:MEMBERS])
                more = ", ... and %d more" % (len(members) - MEMBERS) if len(members) > MEMBERS else ""
                print("%d %s: %s%s" % (len(members), doing.replace("waits", "wait").replace("parks", "park"), names, more))
            for text in found:
                print("    %s" % text)
        if others:
            print("%d more are not shown: `weald where all` unwinds them too" % others)
        if not threads:
            print("no green thread has waited yet")


class Backtrace(gdb.Command):
    """Shows the calls of a green thread: `weald bt ID`, by its number or its name. Of one that runs: the OS thread's."""

    def __init__(self):
        super().__init__("weald bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        thread = chosen(argument)
        print("%s %s" % (thread.label(), thread.describe(marks(all_threads()))))
        if thread.os_thread is not None:
            before = gdb.selected_thread()
            try:
                thread.os_thread.switch()
                gdb.execute("backtrace")
            finally:
                before.switch()
            return
        if not thread.is_suspended:
            raise Failure("weald: its registers are not known in this build")
        for number, text in enumerate(calls(thread)):
            print("#%-3d %s" % (number, text))


class Switch(gdb.Command):
    """`weald switch ID`: from now on `bt`, `up`, `frame`, `info locals` show a green thread that does not run, behind frame 0 of the
    selected OS thread. `weald switch` alone ends that; so does any other command of weald. The process must not run meanwhile."""

    def __init__(self):
        super().__init__("weald switch", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        if not argument.strip():
            LOOK.leave()
            return
        thread = chosen(argument)
        if thread.os_thread is not None:
            thread.os_thread.switch()
            print("%s runs: thread %d is selected" % (thread.label(), thread.os_thread.num))
        elif thread.is_suspended:
            LOOK.enter(thread)
            print("%s is shown behind frame 0" % thread.label())
        else:
            raise Failure("weald: its registers are not known in this build")


gdb.events.cont.connect(lambda event: LOOK.leave())
for command in (Weald, Threads, Where, Backtrace, Switch):
    command()
