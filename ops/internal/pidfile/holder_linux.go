package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

// hasOpen reports whether a process has the file open, other than through
// reader, the caller's own descriptor. Without that exception a caller could
// mistake itself for the lock holder: the holder in another PID namespace can
// have the caller's pid.
//
// known is false if the answer is unknown: the kernel hides the descriptors of
// other users' processes. It shows their locks.
func hasOpen(pid int, file *unix.Stat_t, reader *os.File) (has, known bool) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	d, err := os.Open(dir)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) || !hasProc() {
			return hasLocked(pid, file), false
		}
		return false, true
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	own := ""
	if pid == os.Getpid() {
		own = strconv.Itoa(rawFD(reader))
	}
	var st unix.Stat_t
	for _, name := range names {
		if name != own && unix.Stat(dir+"/"+name, &st) == nil && safedir.SameFile(&st, file) {
			return true, true
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return hasLocked(pid, file), false
	}
	return false, true
}

// hasLocked reports whether a process has locked the file by flock, as far as
// /proc/locks shows: it has the process that called flock, but not one that
// inherited the lock. On some file systems (overlay, btrfs) it has another
// device number than stat.
func hasLocked(pid int, file *unix.Stat_t) bool {
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return false
	}
	want := fmt.Sprintf("%d %02x:%02x:%d", pid, unix.Major(uint64(file.Dev)), unix.Minor(uint64(file.Dev)), file.Ino)
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK ADVISORY WRITE 4711 fe:01:131 0 EOF
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[3] == "WRITE" && f[4]+" "+f[5] == want {
			return true
		}
	}
	return false
}

func hasProc() bool {
	_, err := os.Stat("/proc/self/fd")
	return err == nil
}

// hasUser reports whether uid is the real or the saved user of a process.
// These are the users that kill(2) checks.
func hasUser(pid int, uid uint32) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	_, fields, _ := strings.Cut(string(status), "\nUid:")
	var real, effective, saved uint32
	fmt.Sscan(fields, &real, &effective, &saved)
	return fields != "" && (real == uid || saved == uid)
}

// LockedBy returns the process that has locked a file by flock, as far as
// /proc/locks shows, or 0. The process may belong to any user, and its pid need
// not be in the file. It is unknown if the process has exited and another one has
// inherited the lock, or is in another PID namespace.
func LockedBy(file *os.File) int {
	var st unix.Stat_t
	if unix.Fstat(rawFD(file), &st) != nil {
		return 0
	}
	locks, _ := os.ReadFile("/proc/locks")
	inode := fmt.Sprint(":", st.Ino)
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" || !strings.HasSuffix(f[5], inode) {
			continue
		}
		// The device is not compared, because of overlay and btrfs.
		pid, _ := strconv.Atoi(f[4])
		if has, _ := hasOpen(pid, &st, file); has && pid > 0 {
			return pid
		}
	}
	return 0
}
