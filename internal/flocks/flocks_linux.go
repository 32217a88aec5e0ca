package flocks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder returns the process that has locked a file, or a directory, by flock; 0 if it
// is unknown. The process may belong to any user. It is unknown if it has exited and
// another one has inherited the lock, or if it is in another PID namespace.
func Holder(file *os.File) int {
	fd := int(file.Fd())
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	var hidden []lock // of processes whose descriptors are not shown
	for _, l := range locks(&st) {
		switch open, known := isOpen(l.pid, &st, fd); {
		case open:
			return l.pid
		case !known:
			hidden = append(hidden, l)
		}
	}
	for _, l := range hidden {
		if l.exact || len(hidden) == 1 {
			return l.pid
		}
	}
	return 0
}

// HasOpen reports whether a process has a file open, other than through reader, the
// caller's own descriptor. Without that exception a caller could mistake itself for
// the holder of a lock: the holder in another PID namespace can have the caller's
// pid.
//
// known is false if the answer is unknown: the kernel hides the descriptors of
// other users' processes. It shows their locks, and has is true for a lock.
func HasOpen(pid int, file *unix.Stat_t, reader *os.File) (has, known bool) {
	if has, known = isOpen(pid, file, int(reader.Fd())); known {
		return has, true
	}
	for _, l := range locks(file) {
		if l.exact && l.pid == pid {
			return true, false
		}
	}
	return false, false
}

func isOpen(pid int, file *unix.Stat_t, reader int) (open, known bool) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	d, err := os.Open(dir)
	if err != nil {
		return false, !errors.Is(err, fs.ErrPermission) && hasProc()
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	own := ""
	if pid == os.Getpid() {
		own = strconv.Itoa(reader)
	}
	var st unix.Stat_t
	for _, name := range names {
		if name != own && unix.Stat(dir+"/"+name, &st) == nil && st.Dev == file.Dev && st.Ino == file.Ino {
			return true, true
		}
	}
	return false, !errors.Is(err, fs.ErrPermission)
}

func hasProc() bool {
	_, err := os.Stat("/proc/self/fd")
	return err == nil
}

// A lock is a line of /proc/locks for a file. It has the process that called flock,
// but not one that inherited the lock.
type lock struct {
	pid int

	// exact is false if the device number is another one than that of stat, as on
	// some file systems (overlay, btrfs): the lock may be one on another file.
	exact bool
}

// locks returns the exclusive locks on a file by flock.
func locks(file *unix.Stat_t) (found []lock) {
	data, _ := os.ReadFile("/proc/locks")
	device := fmt.Sprintf("%02x:%02x:", unix.Major(uint64(file.Dev)), unix.Minor(uint64(file.Dev)))
	inode := ":" + strconv.FormatUint(uint64(file.Ino), 10)
	for line := range strings.Lines(string(data)) {
		// 1: FLOCK ADVISORY WRITE 4711 fe:01:131 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" || !strings.HasSuffix(f[5], inode) {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			found = append(found, lock{pid, strings.HasPrefix(f[5], device)})
		}
	}
	return found
}
