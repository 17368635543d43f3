/* Calls by path that read and write no bytes, and the C library's other names for calls that do. What changes
 * anything works in the scratch folder; the managed one is only named. See cases.h. */
#include "cases.h"
#include <dlfcn.h>
#include <spawn.h>
#include <sys/fsuid.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <utime.h>
#include <wordexp.h>

extern char **environ;
#define OLD(name, version) __asm__(".symver " #name "," #name "@GLIBC_" version)
OLD(__xmknod, "2.2.5"); OLD(__xmknodat, "2.4");
int __xmknod(int, const char *, mode_t, dev_t *);
int __xmknodat(int, int, const char *, mode_t, dev_t *);
int __open(const char *, int, ...);
int __open64(const char *, int, ...);
ssize_t __read(int, void *, size_t);
ssize_t __pread64(int, void *, size_t, off64_t);
ssize_t __write(int, const void *, size_t);
ssize_t __pwrite64(int, const void *, size_t, off64_t);
int __close(int);
off_t __lseek(int, off_t, int);
int __fcntl(int, int, ...);
int __dup2(int, int);
int __connect(int, const struct sockaddr *, socklen_t);
int __statfs(const char *, struct statfs *);
FILE *_IO_fopen(const char *, const char *);
FILE *_IO_fdopen(int, const char *);
int _IO_fclose(FILE *);

static char work[PATH_MAX];

/* A folder of the case's own below the scratch folder, empty and without what an earlier run left. */
static void begin(const char *scratch, const char *name) {
    char line[PATH_MAX + 40];
    snprintf(work, sizeof work, "%s/%s", scratch, name);
    snprintf(line, sizeof line, "rm -rf '%s'; mkdir -p '%s'", work, work);
    if (system(line)) exit(3);
}

/* Four names may be in use at a time. */
static char *own(const char *name) {
    static char names[4][PATH_MAX + 100];
    static int next;
    char *out = names[next++ & 3];
    snprintf(out, sizeof names[0], "%s/%s", work, name);
    return out;
}

static void kept(const char *what, int fd) {
    report(what, fd < 0 ? -1 : 0);
    if (fd >= 0) close(fd);
}

static void c_made(const char *file, const char *scratch) {
    dev_t none = 0;
    begin(scratch, "made");
    int at = open(work, O_RDONLY | O_DIRECTORY), here = open(".", O_RDONLY | O_DIRECTORY);
    report("mkdir", mkdir(own("d"), 0700));
    report("mkdir", mkdir("nested/deep", 0700));
    report("mkdir", mkdir(file, 0700));
    report("mkdir", mkdir("nested/absent/x", 0700));
    report("mkdirat", mkdirat(at, "e", 0700));
    report("mkdirat", mkdirat(here, "nested/deep/c.bin", 0700));
    report("mknod", mknod(own("n1"), S_IFREG | 0600, 0));
    report("mknod", mknod("nested/deep/c.bin", S_IFREG | 0600, 0));
    report("mknodat", mknodat(at, "n2", S_IFIFO | 0600, 0));
    report("__xmknod", __xmknod(0, own("n3"), S_IFREG | 0600, &none));
    report("__xmknodat", __xmknodat(0, at, "n4", S_IFREG | 0600, &none));
    report("mkfifo", mkfifo(own("f1"), 0600));
    report("mkfifo", mkfifo("nested/absent/f", 0600));
    report("mkfifoat", mkfifoat(at, "f2", 0600));
    report("symlink", symlink("e", own("l1")));
    report("symlink", symlink("e", file));
    report("symlinkat", symlinkat("e", at, "l2"));
    report("link", link(own("n1"), own("h1")));
    report("link", link("nested/absent", own("h2")));
    report("link", link(own("n1"), file));
    report("linkat", linkat(at, "n1", at, "h3", 0));
    report("rename", rename(own("h1"), own("r1")));
    report("rename", rename("nested/absent", own("r2")));
    report("rename", rename(own("e"), "nested"));
    report("renameat", renameat(at, "r1", at, "r3"));
    report("renameat2", renameat2(at, "r3", here, "nested/deep/c.bin", RENAME_NOREPLACE));
    report("unlink", unlink(own("r3")));
    report("unlink", unlink("nested/deep/absent"));
    report("unlinkat", unlinkat(at, "h3", 0));
    report("unlinkat", unlinkat(here, "nested", AT_REMOVEDIR));
    report("rmdir", rmdir(own("d")));
    report("rmdir", rmdir("nested/deep"));
    report("remove", remove(own("n1")));
    report("remove", remove("nested"));
    report("remove", remove(own("absent")));
    kept("mkstemp", mkstemp(own("t1-XXXXXX")));
    kept("mkstemp64", mkstemp64(own("t2-XXXXXX")));
    kept("mkostemp", mkostemp(own("t3-XXXXXX"), O_CLOEXEC));
    kept("mkostemp64", mkostemp64(own("t4-XXXXXX"), O_CLOEXEC));
    kept("mkstemps", mkstemps(own("t5-XXXXXX.x"), 2));
    kept("mkstemps64", mkstemps64(own("t6-XXXXXX.x"), 2));
    kept("mkostemps", mkostemps(own("t7-XXXXXX.x"), 2, O_CLOEXEC));
    kept("mkostemps64", mkostemps64(own("t8-XXXXXX.x"), 2, O_CLOEXEC));
    report("mkdtemp", mkdtemp(own("t9-XXXXXX")) ? 0 : -1);
    report("mkstemp", mkstemp(own("absent/XXXXXX")));
    report("mkdtemp", mkdtemp(own("no template")) ? 0 : -1);
}

static void c_attributes(const char *file, const char *scratch) {
    struct timeval two[2] = {{1000, 5}, {2000, 7}};
    struct timespec fine[2] = {{1000, 5}, {2000, 7}};
    struct utimbuf old = {1000, 2000};
    char value[64];
    begin(scratch, "attributes");
    close(open(own("f"), O_CREAT | O_WRONLY, 0600));
    report("chmod", chmod(file, 0644));
    report("chmod", chmod("nested/deep/absent", 0600));
    report("fchmodat", fchmodat(AT_FDCWD, own("f"), 0640, 0));
    report("fchmodat", fchmodat(AT_FDCWD, "nested/absent", 0640, 0));
    report("lchmod", lchmod(own("absent"), 0640));
    report("chown", chown(file, geteuid(), getegid()));
    report("lchown", lchown("nested/deep/c.bin", geteuid(), getegid()));
    report("lchown", lchown("nested/deep/absent", geteuid(), getegid()));
    report("fchownat", fchownat(AT_FDCWD, "nested", geteuid(), getegid(), 0));
    report("utime", utime(own("f"), &old));
    report("utime", utime("nested/absent", &old));
    report("utimes", utimes(own("f"), two));
    report("lutimes", lutimes(own("f"), two));
    report("futimesat", futimesat(AT_FDCWD, own("f"), two));
    report("utimensat", utimensat(AT_FDCWD, own("f"), fine, 0));
    report("utimensat", utimensat(AT_FDCWD, "nested/absent", fine, AT_SYMLINK_NOFOLLOW));
    struct stat status;
    report("stat", stat(own("f"), &status));
    printf("%lld %ld\n", (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
    report("setxattr", setxattr(own("f"), "user.one", "1", 1, 0));
    report("lsetxattr", lsetxattr(own("f"), "user.two", "22", 2, 0));
    report("getxattr", getxattr(own("f"), "user.two", value, sizeof value));
    report("getxattr", getxattr(file, "user.absent", value, sizeof value));
    report("lgetxattr", lgetxattr("nested/absent", "user.one", value, sizeof value));
    report("listxattr", listxattr(own("f"), value, sizeof value));
    report("listxattr", listxattr("nested/absent", value, sizeof value));
    report("llistxattr", llistxattr(own("f"), NULL, 0));
    report("removexattr", removexattr(own("f"), "user.one"));
    report("lremovexattr", lremovexattr(own("f"), "user.two"));
    report("lremovexattr", lremovexattr("nested/absent", "user.two"));
}

static void c_places(const char *file, const char *scratch) {
    struct statfs one;
    struct statfs64 one64;
    struct statvfs two;
    struct statvfs64 two64;
    struct { struct file_handle handle; unsigned char room[128]; } handle;
    int mount = 0;
    begin(scratch, "places");
    report("chdir", chdir("nested/deep"));
    report("access", access("c.bin", R_OK));
    report("chdir", chdir("absent"));
    report("chdir", chdir("../.."));
    report("chroot", chroot("nested/absent"));
    report("statfs", statfs("nested/deep", &one));
    report("statfs", statfs("nested/absent", &one));
    report("statfs64", statfs64("nested", &one64));
    report("__statfs", __statfs("nested/absent", &one));
    report("statvfs", statvfs("nested/deep", &two));
    report("statvfs64", statvfs64("nested/absent", &two64));
    report("pathconf", pathconf("nested", _PC_NAME_MAX));
    report("pathconf", pathconf("nested/absent", _PC_NAME_MAX));
    int watch = inotify_init1(IN_CLOEXEC);
    report("inotify_add_watch", inotify_add_watch(watch, "nested/deep", IN_CREATE));
    report("inotify_add_watch", inotify_add_watch(watch, "nested/absent", IN_CREATE));
    handle.handle.handle_bytes = 0;
    report("name_to_handle_at", name_to_handle_at(AT_FDCWD, "nested/absent", &handle.handle, &mount, 0));
    report("ftok", ftok(file, 1) == -1 ? -1 : 0);
    report("ftok", ftok("nested/absent", 1));
    report("setuid", setuid(getuid()));
    report("seteuid", seteuid(geteuid()));
    report("setreuid", setreuid(-1, -1));
    report("setresuid", setresuid(-1, -1, -1));
    report("setfsuid", setfsuid(-1) == (int)geteuid());
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listening = socket(AF_UNIX, SOCK_STREAM, 0), peer = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, "nested/absent/socket");
    report("bind", bind(listening, (struct sockaddr *)&address, sizeof address));
    strcpy(address.sun_path, "nested/absent");
    report("connect", connect(peer, (struct sockaddr *)&address, sizeof address));
    strcpy(address.sun_path, file);
    report("bind", bind(listening, (struct sockaddr *)&address, sizeof address));
    report("__connect", __connect(peer, (struct sockaddr *)&address, sizeof address));
    report("connect", connect(peer, (struct sockaddr *)8, sizeof address));
    strcpy(address.sun_path, "s");
    report("chdir", chdir(work));
    report("bind", bind(listening, (struct sockaddr *)&address, 4));
    report("listen", listen(listening, 1));
    report("connect", connect(peer, (struct sockaddr *)&address, 4));
}

static void c_others(const char *file, const char *scratch) {
    begin(scratch, "others");
    int fd = __open(file, O_RDONLY), ends[2];
    report_bytes("__read", __read(fd, buffer, 5000), buffer);
    report_bytes("__pread64", __pread64(fd, buffer, 4321, 1234), buffer);
    report("__lseek", __lseek(fd, -100, SEEK_END) > 0);
    report_bytes("__read", __read(fd, buffer, 5000), buffer);
    int second = __fcntl(fd, F_DUPFD, 40);
    report("__dup2", __dup2(second, 50));
    report("__lseek", __lseek(50, 7, SEEK_SET));
    report_bytes("__read", __read(second, buffer, 50), buffer);
    report("__close", __close(fd));
    report("__read", __read(fd, buffer, 1));
    fd = __open64("nested/deep/c.bin", O_RDWR);
    report_bytes("__read", __read(fd, buffer, 70000), buffer);
    if (pipe(ends)) exit(3);
    report("__write", __write(ends[1], "text", 4));
    report("__pwrite64", __pwrite64(ends[1], "text", 4, 0));
    FILE *stream = _IO_fopen(file, "r");
    report_bytes("_IO_fopen", (long)fread(buffer, 1, 10000, stream), buffer);
    report("_IO_fclose", _IO_fclose(stream));
    stream = _IO_fdopen(fd, "r");
    report_bytes("_IO_fdopen", (long)fread(buffer, 1, 10000, stream), buffer);
    report("_IO_fclose", _IO_fclose(stream));
    report("_IO_fopen", _IO_fopen("nested/absent", "r") ? 0 : -1);
    report("created", __open(own("new"), O_CREAT | O_WRONLY, 0640) < 0 ? -1 : 0);
}

static void ended(const char *what, int error, const pid_t *child) {
    int status = 0;
    if (error) { printf("%s: %s\n", what, strerror(error)); return; }
    waitpid(*child, &status, 0);
    report(what, WEXITSTATUS(status));
}

static void c_spawned(const char *file, const char *scratch) {
    pid_t child = 0;
    posix_spawn_file_actions_t actions;
    begin(scratch, "spawned");
    char *sum[] = {"sha256sum", NULL}, *deep[] = {"sha256sum", "c.bin", NULL};
    setvbuf(stdout, NULL, _IONBF, 0);
    posix_spawn_file_actions_init(&actions);
    report("addopen", posix_spawn_file_actions_addopen(&actions, 0, file, O_RDONLY, 0));
    ended("posix_spawnp", posix_spawnp(&child, "sha256sum", &actions, NULL, sum, environ), &child);
    ended("posix_spawn", posix_spawn(&child, "nested/absent", NULL, NULL, sum, environ), &child);
    posix_spawn_file_actions_init(&actions);
    report("addchdir", posix_spawn_file_actions_addchdir_np(&actions, "nested/deep"));
    ended("posix_spawn", posix_spawn(&child, "/usr/bin/sha256sum", &actions, NULL, deep, environ), &child);
    for (int way = 0; way < 4; way++) {
        child = fork();
        if (child == 0) {
            if (way == 0) execl("/usr/bin/sha256sum", "sha256sum", file, "a", "b", "c", "d", "e", "f", NULL);
            if (way == 1) execle("/usr/bin/env", "env", "-u", "A", "printenv", "B", NULL, (char *[]){"A=1", "B=2", NULL});
            if (way == 2) execlp("sha256sum", "sha256sum", file, NULL);
            if (way == 3) syscall(SYS_execveat, AT_FDCWD, "/usr/bin/sha256sum", deep, environ, 0);
            _exit(9);
        }
        ended("exec", 0, &child);
    }
    report("execl", execl("nested/absent", "x", NULL));
    report("execveat", execveat(AT_FDCWD, "nested/absent", deep, environ, 0));
    printf("%s\n", dlopen("nested/absent.so", RTLD_NOW) ? "loaded" : dlerror());
    printf("%s\n", dlmopen(LM_ID_BASE, "nested/absent.so", RTLD_NOW) ? "loaded" : dlerror());
    printf("%d\n", dlopen("libm.so.6", RTLD_NOW) != NULL);
    char *whole = canonicalize_file_name("nested/../nested/deep");
    printf("%s\n", whole ? strstr(whole, "/nested") : "");
    wordexp_t words;
    report("wordexp", wordexp("nested/*/c.*", &words, 0));
    printf("%s\n", words.we_wordv[0]);
}

typedef int spawner(int *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[], char *const[]);

/* By a name that the C library need not have: then, and where it says so itself, by the one that it has. */
static void started(const char *name, spawner *as, const char *path, const posix_spawn_file_actions_t *actions) {
    spawner *call = (spawner *)dlsym(RTLD_DEFAULT, name);
    char *argv[] = {"sha256sum", "c.bin", NULL};
    siginfo_t info = {0};
    pid_t child = 0;
    int fd = -1, error = call ? call(&fd, path, actions, NULL, argv, environ) : ENOSYS;
    if (error == ENOSYS) { ended(name, as(&child, path, actions, NULL, argv, environ), &child); return; }
    if (error) { printf("%s: %s\n", name, strerror(error)); return; }
    waitid(P_PIDFD, (id_t)fd, &info, WEXITED);
    report(name, info.si_status);
}

/* Calls that newer C libraries have. */
static void c_newer(const char *file, const char *scratch) {
    (void)scratch;
    int (*openat2)(int, const char *, const void *, size_t) = (int (*)(int, const char *, const void *, size_t))dlsym(RTLD_DEFAULT, "openat2");
    int (*addchdir)(posix_spawn_file_actions_t *, const char *) =
        (int (*)(posix_spawn_file_actions_t *, const char *))dlsym(RTLD_DEFAULT, "posix_spawn_file_actions_addchdir");
    uint64_t how[3] = {O_RDONLY};
    posix_spawn_file_actions_t actions;
    setvbuf(stdout, NULL, _IONBF, 0);
    int fd = openat2 ? openat2(AT_FDCWD, file, how, sizeof how) : (int)syscall(SYS_openat2, AT_FDCWD, file, how, sizeof how);
    report_bytes("openat2", pread(fd, buffer, 5000, 3), buffer);
    report("absent", openat2 ? openat2(AT_FDCWD, "absent", how, sizeof how) : (int)syscall(SYS_openat2, AT_FDCWD, "absent", how, sizeof how));
    report("bad", (int)syscall(SYS_openat2, AT_FDCWD, file, 8, sizeof how));
    int folder = must_open("nested", O_RDONLY | O_DIRECTORY);
    long filled = getdents64(folder, buffer, sizeof buffer);
    report("getdents64", memmem(buffer, (size_t)filled, "small.json", 11) != NULL);
    report("getdents64", getdents64(folder, buffer, sizeof buffer));
    report("getdents64", getdents64(fd, buffer, sizeof buffer));
    posix_spawn_file_actions_init(&actions);
    report("addchdir", (addchdir ? addchdir : posix_spawn_file_actions_addchdir_np)(&actions, "nested/deep"));
    started("pidfd_spawn", (spawner *)posix_spawn, "/usr/bin/sha256sum", &actions);
    started("pidfd_spawnp", (spawner *)posix_spawnp, "sha256sum", &actions);
    started("pidfd_spawn", (spawner *)posix_spawn, "nested/absent", NULL);
}

static const struct case_entry table[] = {
    {"made", c_made}, {"attributes", c_attributes}, {"places", c_places}, {"others", c_others},
    {"spawned", c_spawned}, {"newer", c_newer}, {NULL, NULL},
};

int main(int argc, char **argv) { return run_case(table, argc, argv); }
