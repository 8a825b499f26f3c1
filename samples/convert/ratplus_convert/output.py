"""Files that are written, by the rule that the library has for its own: regular ones, never a pipe
or a device, which may wait for whoever reads it, or be lost when it is replaced. All of this raises
OSError with the path."""
import contextlib
import errno
import os
import stat

# Short, so that there is room for it wherever there is for the file's own name.
PREFIX = ".ratplus-"
MOST_NAMES = 100
PERMISSIONS, GROUP_PERMISSIONS = 0o777, 0o070


def check_regular(path, info):
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "this is a folder, a pipe or a device; give the name of a file",
                      path)


def stat_regular(path):
    """That of the file where the path's links lead; None where there is none."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return None
    check_regular(path, info)
    return info


def follow_links(path, old):
    """Where the path leads: to the file of `old`, or, without it, to where none is yet."""
    if os.path.basename(path) in ("", ".", ".."):
        raise OSError(errno.EINVAL, "this is the name of a folder; give that of a file", path)
    target = os.path.realpath(path)
    # A link of /proc leads to an open file that may have lost its name: what is put where it had
    # been would be another file.
    if old and not (os.path.lexists(target) and os.path.samestat(os.lstat(target), old)):
        raise OSError(errno.EINVAL, "it leads to a file that no folder has under that name", path)
    return target


def make_beside(target, make):
    """make(path) of a short name beside `target` that nothing had, and the path."""
    for i in range(MOST_NAMES):
        path = os.path.join(os.path.dirname(target), f"{PREFIX}{os.getpid()}-{i}")
        try:
            return make(path), path
        except FileExistsError:
            continue
        except OSError as e:
            raise OSError(e.errno, f"nothing can be made beside it: {e.strerror}", target) from None
    raise FileExistsError(errno.EEXIST, "nothing can be made beside it", target)


def keep_permissions(handle, old):
    """Gives a new file the owner, as far as the system allows it, and the permissions of the one
    that it replaces. Another group must not get what the old one was allowed."""
    mode = stat.S_IMODE(old.st_mode) & PERMISSIONS
    try:
        os.fchown(handle, old.st_uid, old.st_gid)
    except OSError:
        try:
            os.fchown(handle, -1, old.st_gid)
        except OSError:
            mode &= ~GROUP_PERMISSIONS
    os.fchmod(handle, mode)


def sync(handle, path):
    """Brings a folder, or a file of a new one, to the disk."""
    try:
        os.fsync(handle)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system knows no such thing
            raise OSError(e.errno, f"it was written, but cannot be brought to the disk: {e.strerror}", path) from None


@contextlib.contextmanager
def syncing_folder(target):
    """Brings the folder of `target` to the disk when the block is over, and was no failure."""
    try:
        handle = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        yield  # it may be written to, and not be read
        return
    try:
        yield
        sync(handle, target)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path, mode="wb", **options):
    """Whole or not at all: an open file that takes the place of the one where the path's links
    lead when the block is over, and keeps its permissions, and its owner where that is allowed."""
    old = stat_regular(path)
    target = follow_links(path, old)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with syncing_folder(target):
        # With `old`, it is its owner's alone until it has that one's permissions.
        handle, work = make_beside(target, lambda name: os.open(name, flags, 0o600 if old else 0o666))
        try:
            with os.fdopen(handle, mode, **options) as out:
                yield out
                out.flush()
                if old:
                    keep_permissions(handle, old)
                os.fsync(handle)
            os.rename(work, target)
        except BaseException:
            os.unlink(work)
            raise


def settle(work, old):
    """Brings the files of a new folder, and itself, to the disk. Each keeps the permissions and the
    owner of what it stands in for in the folder `old`, if that is there."""
    for name in (*os.listdir(work), ""):
        handle = os.open(os.path.join(work, name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = os.path.join(old, name)
            before = os.lstat(before) if os.path.lexists(before) else None
            if before and stat.S_IFMT(before.st_mode) == stat.S_IFMT(os.fstat(handle).st_mode):
                keep_permissions(handle, before)
            sync(handle, old)
        finally:
            os.close(handle)


def append_text(path, text):
    stat_regular(path)
    # A pipe that came there since does not have this wait.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
                     | os.O_CLOEXEC, 0o666)
    with os.fdopen(handle, "a", encoding="ascii") as out:
        check_regular(path, os.fstat(handle))
        out.write(text)
