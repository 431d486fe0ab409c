/* Calls of the file system that are counted, told, and made to fail: preloaded into a child process by the tests.
 *
 * Python, SQLite, HDF5 and Arrow all come through here. Only paths below one folder count; see fault_shim.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char prefix[PATH_MAX];
static long calls, fail_at;
static int fail_errno, told = -1, locks_fail, short_write;

/* With short_ the nth call, if it writes, writes half of its bytes and says so; from then on every write fails with
 * `error`, as on a disk that has become full, or none where it is 0. */
void shim_arm(const char *folder, long nth, int error, int log, int short_) {
    snprintf(prefix, sizeof prefix, "%s", folder);
    calls = 0;
    fail_at = nth;
    fail_errno = error;
    told = log;
    short_write = short_;
}

long shim_disarm(void) {
    prefix[0] = 0;
    return calls;
}

void shim_break_locks(int error) { locks_fail = error; }

static int fails(const char *call, const char *path, const char *to) {
    if (!prefix[0] || !path || strncmp(path, prefix, strlen(prefix)))
        return 0;
    long number = __sync_add_and_fetch(&calls, 1);
    if (told >= 0) {
        char line[2 * PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", call, path, to ? to : "");
        syscall(SYS_write, told, line, (size_t)length);
    }
    if (short_write ? !fail_errno || !fail_at || number <= fail_at || strcmp(call, "write") : number != fail_at)
        return 0;
    errno = fail_errno;
    return 1;
}

static int fd_fails(const char *call, int fd) {
    if (!prefix[0])
        return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(call, path, NULL);
}

/* How many of `size` bytes may be written: all, half where this is the short write, or -1. */
static ssize_t allowed(int fd, size_t size) {
    long before = calls;
    if (fd_fails("write", fd))
        return -1;
    return short_write && calls != before && calls == fail_at && size > 1 ? (ssize_t)(size / 2) : (ssize_t)size;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FD(type, name, call, declared, ...)                                                                         \
    type name declared { return fd_fails(call, fd) ? -1 : NEXT(name)(__VA_ARGS__); }

#define WRITES(name, declared, ...)                                                                                    \
    ssize_t name declared {                                                                                            \
        ssize_t part = allowed(fd, size);                                                                              \
        return part < 0 ? -1 : NEXT(name)(__VA_ARGS__);                                                                \
    }

WRITES(write, (int fd, const void *data, size_t size), fd, data, (size_t)part)
WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), fd, data, (size_t)part, at)
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, (size_t)part, at)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    size_t first = count > 0 ? parts[0].iov_len : 0;
    ssize_t part = allowed(fd, first);
    if (part < 0)
        return -1;
    return (size_t)part < first ? NEXT(write)(fd, parts[0].iov_base, (size_t)part) : NEXT(writev)(fd, parts, count);
}

ON_FD(int, fsync, "fsync", (int fd), fd)
ON_FD(int, fdatasync, "fsync", (int fd), fd)
ON_FD(int, ftruncate, "truncate", (int fd, off_t size), fd, size)
ON_FD(int, ftruncate64, "truncate", (int fd, off64_t size), fd, size)

int rename(const char *from, const char *to) { return fails("rename", from, to) ? -1 : NEXT(rename)(from, to); }

int renameat2(int d1, const char *from, int d2, const char *to, unsigned flags) {
    return fails("rename", from, to) ? -1 : NEXT(renameat2)(d1, from, d2, to, flags);
}

int link(const char *from, const char *to) { return fails("link", from, to) ? -1 : NEXT(link)(from, to); }

int mkdir(const char *path, mode_t mode) { return fails("mkdir", path, NULL) ? -1 : NEXT(mkdir)(path, mode); }

#define OPENS(name)                                                                                                    \
    int name(const char *path, int flags, ...) {                                                                       \
        mode_t mode = 0;                                                                                               \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                           \
            va_list more;                                                                                              \
            va_start(more, flags);                                                                                     \
            mode = va_arg(more, mode_t);                                                                               \
            va_end(more);                                                                                              \
        }                                                                                                              \
        if ((flags & O_CREAT) && fails("create", path, NULL))                                                          \
            return -1;                                                                                                 \
        return NEXT(name)(path, flags, mode);                                                                          \
    }
OPENS(open)
OPENS(open64)

#define LOCKS(name)                                                                                                    \
    int name(int fd, int command, ...) {                                                                               \
        va_list more;                                                                                                  \
        va_start(more, command);                                                                                       \
        void *argument = va_arg(more, void *);                                                                         \
        va_end(more);                                                                                                  \
        if (locks_fail && (command == F_SETLK || command == F_SETLKW)) {                                               \
            errno = locks_fail;                                                                                        \
            return -1;                                                                                                 \
        }                                                                                                              \
        return NEXT(name)(fd, command, argument);                                                                      \
    }
LOCKS(fcntl)
LOCKS(fcntl64)

__attribute__((constructor)) static void from_environment(void) {
    extern char *getenv(const char *);
    if (getenv("SHIM_BREAK_LOCKS"))
        locks_fail = ENOLCK;
}
