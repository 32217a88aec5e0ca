package pidfile

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Holds tells whether a process has the file open. Of a process of another user, which does not let itself be looked
// into, it is believed if there is such a process.
func Holds(pid int, file *unix.Stat_t) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	d, err := os.Open(dir)
	if err != nil {
		return errors.Is(err, fs.ErrPermission) || !hasProc() && alive(pid)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	var st unix.Stat_t
	for _, name := range names {
		if unix.Stat(dir+"/"+name, &st) == nil && st.Dev == file.Dev && st.Ino == file.Ino {
			return true
		}
	}
	return errors.Is(err, fs.ErrPermission)
}

func hasProc() bool {
	_, err := os.Stat("/proc/self/fd")
	return err == nil
}
