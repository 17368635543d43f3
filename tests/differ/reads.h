/* Operations on descriptors: opening, reading, seeking, asking, duplicating, and doing it wrongly. */

static void op_open(void) {
    static const int flags[] = {
        O_RDONLY, O_RDONLY, O_RDONLY, O_RDONLY, O_RDONLY, O_RDONLY, O_RDWR, O_RDWR, O_RDONLY | O_CLOEXEC,
        O_RDONLY | O_NOFOLLOW, O_PATH, O_PATH | O_NOFOLLOW, O_RDONLY | O_DIRECTORY, O_RDONLY | O_CREAT,
        O_RDWR | O_CREAT | O_EXCL, O_RDONLY | O_NONBLOCK, O_RDONLY | O_APPEND, O_RDONLY | O_NOATIME, O_RDONLY | O_SYNC,
    };
    int slot = free_fd(), file = any_file(), flag = PICK(flags);
    const char *path = flag & O_CREAT || !one_in(12) ? any_path(file) : absent_path();
    say_path(path);
    say(" flags=%o", flag);
    int fd;
    switch (below(6)) {
    case 0: fd = (int)NOTE("openat", openat(AT_FDCWD, path, flag, 0600)); break;
    case 1: fd = (int)NOTE("openat", openat(folder_fd, path, flag, 0600)); break;
    case 2: fd = (int)NOTE("sys_openat", syscall(SYS_openat, folder_fd, path, flag, 0600)); break;
    case 3: fd = (int)NOTE("open64", open64(path, flag, 0600)); break;
    case 4: fd = (int)NOTE("openat-bad", openat(one_in(3) ? -7 : folder_fd, path, flag, 0600)); break;
    default: fd = (int)NOTE("open", open(path, flag, 0600));
    }
    if (fd < 0) return;
    fds[slot].fd = fd;
    fds[slot].file = file;
    fds[slot].flags = flag;
    say(" fl=%o fdfl=%d", (unsigned)fcntl(fd, F_GETFL) & ~(unsigned)O_LARGEFILE, fcntl(fd, F_GETFD));
}

static void op_close(void) {
    int slot = used_fd();
    if (slot < 0 || one_in(30)) { NOTE("close", close(one_in(2) ? -1 : 998877)); return; }
    int fd = fds[slot].fd;
    fds[slot].fd = -1;
    if (one_in(4)) NOTE("close_range", close_range((unsigned)fd, (unsigned)fd, 0));
    else NOTE("close", close(fd));
}

static void op_read(void) {
    int file, fd = target(&file);
    long count = any_count();
    unsigned char *at = dest(count);
    say(" n=%ld", count);
    if (one_in(8)) CALL(syscall(SYS_read, fd, at, count));
    else CALL(read(fd, at, (size_t)count));
    got("read", call_result, at);
    offset(fd);
}

/* Fewer bytes are left than asked for. */
static void op_short(void) {
    int file, fd = target(&file);
    long size = files[file].size, left = below(one_in(4) ? 200 * KIB : 5000), start = size > left ? size - left : 0;
    long count = size - start + 1 + below(one_in(4) ? 300 * KIB : 9000);
    unsigned char *at = dest(count);
    say(" n=%ld at=%ld", count, start);
    if (one_in(2)) {
        got("pread", CALL(pread(fd, at, (size_t)count, start)), at);
    } else {
        NOTE("seek", lseek(fd, start, SEEK_SET));
        got("read", CALL(read(fd, at, (size_t)count)), at);
        at = dest(count);
        got("again", CALL(read(fd, at, (size_t)count)), at);
    }
    offset(fd);
}

static void op_pread(void) {
    int file, fd = target(&file);
    long count = any_count(), where = any_offset(file);
    unsigned char *at = dest(count);
    say(" n=%ld at=%ld", count, where);
    switch (below(6)) {
    case 0: CALL(syscall(SYS_pread64, fd, at, count, where)); break;
    case 1: CALL(pread64(fd, at, (size_t)count, where)); break;
    default: CALL(pread(fd, at, (size_t)count, where));
    }
    got("pread", call_result, at);
    offset(fd);
}

/* A vector over one clean buffer, with empty, tiny and large pieces. */
static int any_vector(struct iovec *list, unsigned char **first) {
    int n = (int)below(6), at = 0;
    if (one_in(20)) n = one_in(2) ? IOV_MAX : 40;
    *first = dest(300 * KIB);
    for (int i = 0; i < n; i++) {
        long len = n > 30 ? below(200) : one_in(5) ? 0 : one_in(4) ? below(90 * KIB) : below(3000);
        if (at + len > 300 * KIB - 100) len = 0;
        list[i] = (struct iovec){*first + at, (size_t)len};
        at += (int)len;
    }
    return n;
}

static void op_readv(void) {
    struct iovec list[IOV_MAX + 1];
    unsigned char *at;
    int file, fd = target(&file), n = any_vector(list, &at);
    say(" iov=%d", n);
    got("readv", CALL(readv(fd, list, n)), at);
    offset(fd);
}

static void op_preadv(void) {
    struct iovec list[IOV_MAX + 1];
    unsigned char *at;
    int file, fd = target(&file), n = any_vector(list, &at);
    long where = any_offset(file);
    say(" iov=%d at=%ld", n, where);
    switch (below(5)) {
    case 0: CALL(preadv2(fd, list, n, where, 0)); break;
    case 1: CALL(preadv2(fd, list, n, -1, 0)); break;
    case 2: CALL(preadv2(fd, list, n, where, 0x4000)); break;
    case 3: CALL(preadv64(fd, list, n, where)); break;
    default: CALL(preadv(fd, list, n, where));
    }
    got("preadv", call_result, at);
    offset(fd);
}

static void op_iov(void) {
    struct iovec list[IOV_MAX + 1];
    int file, fd = target(&file), kind = (int)below(8);
    unsigned char *at = dest(4096), *edge = POOL_END - 100;
    memset(edge, 0xa5, 100);
    for (int i = 0; i <= IOV_MAX; i++) list[i] = (struct iovec){at + i, 1};
    say(" kind=%d", kind);
    switch (kind) {
    case 0: CALL(readv(fd, list, IOV_MAX + 1)); break;
    case 1: CALL(readv(fd, list, -1)); break;
    case 2: CALL(readv(fd, list, 0)); break;
    case 3: list[1].iov_len = (size_t)-1; CALL(readv(fd, list, 3)); break;
    case 4: CALL(readv(fd, nowhere, 2)); break;
    case 5: list[1] = (struct iovec){edge, 300}; list[0].iov_len = 50; CALL(preadv(fd, list, 2, 0)); break;
    case 6: list[0] = (struct iovec){NULL, 0}; list[1].iov_len = 64; CALL(preadv(fd, list, 2, 1)); break;
    default: list[0].iov_len = 40; list[1] = (struct iovec){NULL, 64}; CALL(preadv(fd, list, 3, 0)); break;
    }
    got("iov", call_result, at);
    say(" edge=%016llx", (unsigned long long)fold(1, edge, 100));
    offset(fd);
}

static void op_lseek(void) {
    static const int whences[] = {SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE, 77};
    int file, fd = target(&file), whence = one_in(40) ? 77 : whences[below(5)];
    long where = any_offset(file);
    if ((whence == SEEK_END || whence == SEEK_CUR) && !one_in(8)) where = below(files[file].size + 100) - files[file].size;
    say(" to=%ld whence=%d", where, whence);
    switch (below(6)) {
    case 0: NOTE("sys_lseek", syscall(SYS_lseek, fd, where, whence)); break;
    case 1: NOTE("lseek64", lseek64(fd, where, whence)); break;
    default: NOTE("lseek", lseek(fd, where, whence));
    }
    offset(fd);
}

static void say_stat(long result, const struct stat *st) {
    if (result) return;
    if (S_ISDIR(st->st_mode)) { say(" mode=%o", st->st_mode); return; }
    if (S_ISLNK(st->st_mode)) { say(" link"); return; }
    say(" size=%ld mode=%o nlink=%lu uid=%u mtime=%ld", st->st_size, st->st_mode, (unsigned long)st->st_nlink, st->st_uid, st->st_mtime);
}

static void op_fstat(void) {
    struct stat st, named;
    int file, fd = target(&file);
    memset(&st, 0, sizeof st);
    switch (below(5)) {
    case 0: NOTE("sys_fstat", syscall(SYS_fstat, fd, &st)); break;
    case 1: NOTE("fstatat", fstatat(fd, "", &st, AT_EMPTY_PATH)); break;
    case 2: NOTE("fstat-bad", fstat(fd, one_in(2) ? nowhere : &st)); break;
    default: NOTE("fstat", fstat(fd, &st));
    }
    long result = call_result;
    say_stat(result, &st);
    if (result == 0 && st.st_mode && S_ISREG(st.st_mode) && stat(files[file].name, &named) == 0)
        say(" same=%d", st.st_ino == named.st_ino && st.st_dev == named.st_dev);
}

static void op_stat(void) {
    struct stat st;
    int file = any_file();
    const char *path = one_in(12) ? absent_path() : one_in(14) ? "sub" : any_path(file);
    memset(&st, 0, sizeof st);
    say_path(path);
    switch (below(8)) {
    case 0: NOTE("lstat", lstat(path, &st)); break;
    case 1: NOTE("fstatat", fstatat(folder_fd, path, &st, one_in(2) ? AT_SYMLINK_NOFOLLOW : 0)); break;
    case 2: NOTE("fstatat-bad", fstatat(folder_fd, path, &st, 0x40000)); break;
    case 3: NOTE("sys_stat", syscall(SYS_stat, path, &st)); break;
    case 4: NOTE("access", access(path, one_in(3) ? X_OK : one_in(2) ? R_OK : F_OK)); return;
    case 5: NOTE("faccessat", faccessat(folder_fd, path, one_in(2) ? R_OK : 99, 0)); return;
    case 6: NOTE("stat-bad", stat(one_in(2) ? nothing : nowhere, &st)); break;
    default: NOTE("stat", stat(path, &st));
    }
    say_stat(call_result, &st);
}

static void op_statx(void) {
    static const unsigned masks[] = {STATX_BASIC_STATS, STATX_ALL, STATX_SIZE, STATX_TYPE | STATX_MODE, 0x80000000u};
    struct statx st;
    memset(&st, 0, sizeof st);
    unsigned mask = PICK(masks);
    int file;
    if (one_in(2)) {
        int fd = target(&file);
        NOTE("statx", statx(fd, "", one_in(12) ? 0 : AT_EMPTY_PATH, mask, &st));
    } else {
        const char *path = one_in(10) ? absent_path() : any_path(file = any_file());
        say_path(path);
        NOTE("statx", statx(folder_fd, path, one_in(3) ? AT_SYMLINK_NOFOLLOW : one_in(15) ? 0x100000 : 0, mask, &st));
    }
    if (call_result == 0 && S_ISREG(st.stx_mode))
        say(" mask=%x size=%llu mode=%o nlink=%u", st.stx_mask & mask & STATX_BASIC_STATS & ~STATX_ATIME & ~STATX_CTIME,
            (unsigned long long)st.stx_size, st.stx_mode, st.stx_nlink);
    /* Times that were not asked for may be 0. */
    if (call_result == 0 && S_ISREG(st.stx_mode) && st.stx_mask & mask & STATX_MTIME)
        say(" mtime=%lld.%u", (long long)st.stx_mtime.tv_sec, st.stx_mtime.tv_nsec);
}

/* Puts a new number into a slot, or closes it. */
static void keep(int fd, int file, int flags) {
    if (fd < 0) return;
    int slot = free_fd();
    fds[slot].fd = fd;
    fds[slot].file = file;
    fds[slot].flags = flags;
}

static void op_dup(void) {
    int slot = used_fd();
    if (slot < 0) { NOTE("dup", dup(-1)); return; }
    int fd = fds[slot].fd, file = fds[slot].file, flags = fds[slot].flags, other = used_fd(), made = -1;
    say(" fd%d:%s", fd, files[file].name);
    switch (below(9)) {
    case 0: made = (int)NOTE("dup", dup(fd)); break;
    case 1: made = (int)NOTE("F_DUPFD", fcntl(fd, F_DUPFD, 30 + (int)below(20))); break;
    case 2: made = (int)NOTE("F_DUPFD_CLOEXEC", fcntl(fd, F_DUPFD_CLOEXEC, 30 + (int)below(20))); break;
    case 3: NOTE("dup2-same", dup2(fd, fd)); break;
    case 4: NOTE("dup3-same", dup3(fd, fd, O_CLOEXEC)); break;
    case 5: NOTE("dup2-bad", one_in(2) ? dup2(fd, -1) : dup2(997, fd)); break;
    case 6: made = (int)NOTE("sys_dup", syscall(SYS_dup, fd)); break;
    /* Over a number that is another file's: what was known of that number must go. */
    case 7: NOTE("dup2-over", dup2(fd, fds[other].fd)); fds[other].file = file; fds[other].flags = flags; break;
    default: NOTE("dup3-over", other == slot ? 0 : dup3(fd, fds[other].fd, O_CLOEXEC)); fds[other].file = file; fds[other].flags = flags;
    }
    int through = made >= 0 ? made : fds[other].fd;
    keep(made, file, flags);
    unsigned char *at = dest(3000);
    got("read", CALL(read(through, at, (size_t)below(3000))), at);
    offset(through);
    offset(fd);
}

/* Bad buffers: EFAULT, or as many bytes as there is room for. */
static void op_fault(void) {
    int file, fd = target(&file), kind = (int)below(9);
    long room = 1 + below(one_in(3) ? 100 * KIB : 3000), where = any_offset(file), count = room + 1 + below(9000);
    unsigned char *edge = POOL_END - room;
    memset(edge, 0xa5, (size_t)room);
    say(" kind=%d room=%ld n=%ld at=%ld", kind, room, count, where);
    switch (kind) {
    case 0: NOTE("read", read(fd, nothing, 100)); break;
    case 1: NOTE("read", read(fd, POOL_END, 100)); break;
    case 2: NOTE("pread", pread(fd, (void *)-4096L, 100, where)); break;
    case 3: NOTE("pread", pread(fd, (void *)"read-only", 5, where)); break;
    case 4: NOTE("pread", pread(fd, POOL_END, 70 * KIB, where)); break;
    case 5: case 6: NOTE("read", read(fd, edge, (size_t)count)); break;
    default: NOTE("pread", pread(fd, edge, (size_t)count, where));
    }
    say(" h%016llx", (unsigned long long)fold(FOLD_START, edge, (size_t)room));
    offset(fd);
}

/* Writes to what is open for reading only. */
static void op_write(void) {
    int slot = used_fd(), fd = slot < 0 ? -1 : read_only(fds[slot].fd);
    struct iovec list = {(void *)"x", 1};
    say(" fd%d", fd);
    switch (below(6)) {
    case 0: NOTE("pwrite", pwrite(fd, "x", 1, below(3))); break;
    case 1: NOTE("writev", writev(fd, &list, 1)); break;
    case 2: NOTE("ftruncate", ftruncate(fd, below(9))); break;
    case 3: NOTE("fallocate", fallocate(fd, 0, 0, 5)); break;
    case 4: NOTE("sys_write", syscall(SYS_write, fd, "x", 1)); break;
    default: NOTE("write", write(fd, "x", 1));
    }
    offset(fd);
}

static void op_fcntl(void) {
    int file, fd = target(&file), left = -1;
    switch (below(7)) {
    case 0: NOTE("F_GETFL", fcntl(fd, F_GETFL)); break;
    case 1: NOTE("F_SETFD", fcntl(fd, F_SETFD, one_in(2) ? FD_CLOEXEC : 0)); NOTE("F_GETFD", fcntl(fd, F_GETFD)); break;
    case 2: NOTE("fsync", fsync(fd)); break;
    case 3: NOTE("bad", fcntl(fd, 4242)); break;
    case 4: NOTE("TCGETS", ioctl(fd, 0x5401, &left)); break;
    case 5: NOTE("FIONREAD-bad", ioctl(fd, FIONREAD, nowhere)); break;
    default: NOTE("FIONREAD", ioctl(fd, FIONREAD, &left)); say(" left=%d", left);
    }
}

static void op_advise(void) {
    static const int advices[] = {POSIX_FADV_NORMAL, POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM, POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED, 99};
    int file, fd = target(&file);
    long where = any_offset(file), count = any_count();
    if (one_in(3)) NOTE("readahead", readahead(fd, where, (size_t)count));
    else NOTE("fadvise", posix_fadvise(fd, where, one_in(12) ? -1 : count, PICK(advices)));
    offset(fd);
}
