/* The type of the file system that each name of `statfs` gives of each FILE: `NAME FILE TYPE`. The status of the
 * vfs calls has no type before glibc 2.39: their fundamental block is compared with that of `statfs` instead.
 * Usage: lies FILE... */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct statfs one;
static struct statvfs two;
static const char *file;

static void show(const char *name, int got) { printf("%s %s %lx\n", name, file, got ? -1L : (long)one.f_type); }

/* The counts of the same file system, and so its type. */
static void show_v(const char *name, int got) {
    int same = !got && two.f_blocks == one.f_blocks && two.f_bsize == (unsigned long)one.f_bsize && two.f_files == one.f_files;
    printf("%s %s %lx\n", name, file, same ? (long)one.f_type : -1L);
}

int main(int argc, char **argv) {
    for (int at = 1; at < argc; at++) {
        file = argv[at];
        int fd = open(file, O_RDONLY);
        show("statfs", statfs(file, &one));
        show("statfs64", statfs64(file, (struct statfs64 *)&one));
        show("fstatfs", fstatfs(fd, &one));
        show("fstatfs64", fstatfs64(fd, (struct statfs64 *)&one));
        show("SYS_statfs", (int)syscall(SYS_statfs, file, &one));
        show("SYS_fstatfs", (int)syscall(SYS_fstatfs, fd, &one));
        show_v("statvfs", statvfs(file, &two));
        show_v("fstatvfs", fstatvfs(fd, &two));
        show_v("fstatvfs64", fstatvfs64(fd, (struct statvfs64 *)&two));
        close(fd);
    }
    return 0;
}
