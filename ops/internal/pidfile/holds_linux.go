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

// Holds tells whether a process has the file open, other than by the descriptor with which it looks itself: in another PID
// namespace the pid of who holds the file can be that of who looks. Of a process of another user, which does not let itself be looked
// into, it is believed if there is such a process.
func Holds(pid int, file *unix.Stat_t, looks *os.File) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	d, err := os.Open(dir)
	if err != nil {
		return errors.Is(err, fs.ErrPermission) || !hasProc() && alive(pid)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	own := ""
	if pid == os.Getpid() {
		own = strconv.Itoa(int(looks.Fd()))
	}
	var st unix.Stat_t
	for _, name := range names {
		if name != own && unix.Stat(dir+"/"+name, &st) == nil && st.Dev == file.Dev && st.Ino == file.Ino {
			return true
		}
	}
	return errors.Is(err, fs.ErrPermission)
}

func hasProc() bool {
	_, err := os.Stat("/proc/self/fd")
	return err == nil
}

// hasUser tells whether a process is a user's in that sense in which kill(2) asks: by its real or its saved user.
func hasUser(pid int, uid uint32) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(status), "\nUid:")
	var real, effective, saved uint32
	fmt.Sscan(rest, &real, &effective, &saved)
	return rest != "" && (real == uid || saved == uid)
}
