package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hasOpen reports whether a process has the file open, other than through
// reader, the caller's own descriptor. Without that exception a caller could
// mistake itself for the lock holder: the holder in another PID namespace can
// have the caller's pid. The kernel hides the descriptors of other users'
// processes; hasOpen then reports whether the process exists.
func hasOpen(pid int, file *unix.Stat_t, reader *os.File) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	d, err := os.Open(dir)
	if err != nil {
		return errors.Is(err, fs.ErrPermission) || !hasProc() && exists(pid)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	own := ""
	if pid == os.Getpid() {
		own = strconv.Itoa(int(reader.Fd()))
	}
	var st unix.Stat_t
	for _, name := range names {
		if name != own && unix.Stat(dir+"/"+name, &st) == nil && sameFile(&st, file) {
			return true
		}
	}
	return errors.Is(err, fs.ErrPermission)
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
