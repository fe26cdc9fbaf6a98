/* Counts what a process asks of its allocator and what it sends and receives, into the file that CTRFS_COUNT names.
 *
 * For LD_PRELOAD: these definitions come before those of the C library. The file is shared, so whoever maps it reads
 * the numbers without asking the process, and a process that goes on as its own child counts on in the same place.
 * Its numbers, 8 bytes each: allocations, their bytes, bytes written to /dev/fuse, bytes written to sockets, bytes read from them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ALLOCATIONS, ALLOCATED, REPLIED, SENT, RECEIVED, NUMBERS };

static _Atomic unsigned long *numbers;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("CTRFS_COUNT");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, NUMBERS * sizeof *numbers, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        numbers = map;
}

static void add(int which, size_t much) {
    if (numbers)
        atomic_fetch_add_explicit(&numbers[which], much, memory_order_relaxed);
}

/* The C library's own, under the names that it has for those who replace them. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static void allocated(size_t size) {
    add(ALLOCATIONS, 1);
    add(ALLOCATED, size);
}

void *malloc(size_t size) {
    allocated(size);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocated(count * size);
    return __libc_calloc(count, size);
}

/* What grows counts with all of its new size: it may have to be copied. */
void *realloc(void *old, size_t size) {
    allocated(size);
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    allocated(size);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    return memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    void *found = memalign(alignment, size);
    if (!found)
        return ENOMEM;
    *out = found;
    return 0;
}

/* Which number a write to this file goes to; none for anything but the kernel's end of the mount and sockets. */
static int kind(int fd, int socket) {
    struct stat found;
    int before = errno, which = -1;
    if (!fstat(fd, &found)) {
        if (S_ISSOCK(found.st_mode))
            which = socket;
        else if (S_ISCHR(found.st_mode) && found.st_rdev == makedev(10, 229))
            which = REPLIED;
    }
    errno = before;
    return which;
}

static ssize_t out(int fd, ssize_t done) {
    int which = done > 0 ? kind(fd, SENT) : -1;
    if (which >= 0)
        add(which, done);
    return done;
}

static ssize_t in(int fd, ssize_t done) {
    if (done > 0 && kind(fd, RECEIVED) == RECEIVED)
        add(RECEIVED, done);
    return done;
}

ssize_t write(int fd, const void *from, size_t size) {
    return out(fd, syscall(SYS_write, fd, from, size));
}

ssize_t writev(int fd, const struct iovec *from, int count) {
    return out(fd, syscall(SYS_writev, fd, from, count));
}

ssize_t send(int fd, const void *from, size_t size, int flags) {
    return out(fd, syscall(SYS_sendto, fd, from, size, flags, NULL, 0));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    return out(fd, syscall(SYS_sendmsg, fd, message, flags));
}

ssize_t read(int fd, void *to, size_t size) {
    return in(fd, syscall(SYS_read, fd, to, size));
}

ssize_t readv(int fd, const struct iovec *to, int count) {
    return in(fd, syscall(SYS_readv, fd, to, count));
}

ssize_t recv(int fd, void *to, size_t size, int flags) {
    return in(fd, syscall(SYS_recvfrom, fd, to, size, flags, NULL, NULL));
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    return in(fd, syscall(SYS_recvmsg, fd, message, flags));
}
