/* A disk that breaks on demand, underneath one directory of one process: LD_PRELOAD=disk_shim.so.

   DISK_STATE names a file whose first byte says how: '.' well, 'S' no space, 'E' input/output error, 'R' read-only,
   'L' slow (0.2 s before each write and sync). DISK_BELOW is the directory. Reading always works. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *state, *below;
static size_t below_length;

__attribute__((constructor)) static void begin(void) {
    const char *place = getenv("DISK_STATE");
    below = getenv("DISK_BELOW");
    if (!place || !below) return;
    below_length = strlen(below);
    int fd = open(place, O_RDONLY);
    if (fd < 0) return;
    void *page = mmap(0, 1, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) state = page;
    close(fd);
}

static int broken_path(const char *path) {
    char whole[4096];
    if (path[0] != '/' && getcwd(whole, sizeof whole) && strlen(whole) + strlen(path) + 2 < sizeof whole) {
        strcat(strcat(whole, "/"), path);
        path = whole;
    }
    return strncmp(path, below, below_length) == 0;
}

/* 0: go on; else the errno to fail with. */
static int fault(const char *path, int fd) {
    char link[64], found[4096];
    if (!state || *state == '.') return 0;
    if (!path) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, found, sizeof found - 1);
        if (length < 0) return 0;
        found[length] = 0;
        path = found;
    }
    if (!broken_path(path)) return 0;
    switch (*state) {
    case 'S': return ENOSPC;
    case 'E': return EIO;
    case 'R': return EROFS;
    case 'L': { struct timespec wait = {0, 200000000}; nanosleep(&wait, 0); }
    }
    return 0;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define STOP(path, fd) do { int e = fault(path, fd); if (e) { errno = e; return -1; } } while (0)

ssize_t write(int fd, const void *data, size_t size) { REAL(write); STOP(0, fd); return real(fd, data, size); }
ssize_t pwrite(int fd, const void *d, size_t n, off_t at) { REAL(pwrite); STOP(0, fd); return real(fd, d, n, at); }
ssize_t pwrite64(int fd, const void *d, size_t n, off64_t at) { REAL(pwrite64); STOP(0, fd); return real(fd, d, n, at); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(writev); STOP(0, fd); return real(fd, v, n); }
int fsync(int fd) { REAL(fsync); STOP(0, fd); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); STOP(0, fd); return real(fd); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); STOP(0, fd); return real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); STOP(0, fd); return real(fd, size); }
int rename(const char *from, const char *to) { REAL(rename); STOP(to, 0); return real(from, to); }
int mkdir(const char *path, mode_t mode) {
    static int (*real)(const char *, mode_t);
    if (!real) real = (int (*)(const char *, mode_t))dlsym(RTLD_NEXT, "mkdir");
    STOP(path, 0);
    return real(path, mode);
}

#define OPENING(name) \
    int name(const char *path, int flags, ...) { \
        static int (*real)(const char *, int, ...); \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); } \
        if (flags & (O_CREAT | O_TRUNC) || (state && *state == 'R' && (flags & O_ACCMODE) != O_RDONLY)) STOP(path, 0); \
        return real(path, flags, mode); \
    }
OPENING(open)
OPENING(open64)
