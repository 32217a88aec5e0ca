package pidfile

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/flocks"
)

// hasOpen reports whether a process has the file open, other than through reader,
// as far as that is known.
func hasOpen(pid int, file *unix.Stat_t, reader *os.File) (has, known bool) {
	return flocks.HasOpen(pid, file, reader)
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
