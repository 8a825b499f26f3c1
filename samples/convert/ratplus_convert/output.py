"""Files that are written: regular ones, never a pipe or a device, which may wait for whoever
reads it, or be lost when it is replaced. All of this raises OSError with the path."""
import contextlib
import errno
import os
import stat
import tempfile

# Short, so that there is room for it wherever there is for the file's own name.
PREFIX = ".ratplus-"


def check_regular(path, mode):
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "this is a folder, a pipe or a device; give the name of a file",
                      path)


def mode_of(path):
    """That of the file where the path's links lead; None where there is none."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    check_regular(path, mode)
    return stat.S_IMODE(mode) & 0o777


@contextlib.contextmanager
def replacing(path, mode="wb", **options):
    """Whole or not at all: an open file that takes the place of the one where the path's links
    lead when the block is over, and keeps its permissions."""
    permissions = mode_of(path)
    target = os.path.realpath(path)
    handle, work = tempfile.mkstemp(prefix=PREFIX, dir=os.path.dirname(target))
    try:
        with os.fdopen(handle, mode, **options) as out:
            yield out
            out.flush()
            os.fchmod(handle, 0o644 if permissions is None else permissions)
            os.fsync(handle)
        os.rename(work, target)
    except BaseException:
        os.unlink(work)
        raise


def append_text(path, text):
    mode_of(path)
    # A pipe that came there since does not have this wait.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC,
                     0o666)
    with os.fdopen(handle, "a", encoding="ascii") as out:
        check_regular(path, os.fstat(handle).st_mode)
        out.write(text)
