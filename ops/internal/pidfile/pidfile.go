// Package pidfile implements pid files that the kernel locks for as long as
// the process lives. Only the lock decides who runs. The content of the file is
// for people and scripts, and for finding the lock holder.
package pidfile

import (
	"fmt"
	"strconv"
	"time"
)

// HeldError is returned when another process, or another part of this one,
// holds the lock on a file.
type HeldError struct {
	Path string
	PID  int // zero if unknown, for example in another PID namespace
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return e.Path + " is locked by a process with an unknown pid"
	}
	return fmt.Sprintf("%s is locked by process %d", e.Path, e.PID)
}

// holderTimeout bounds how long Holder waits for a pid in a locked file. The
// lock holder may have to wait for the CPU between lock and write.
const holderTimeout = 500 * time.Millisecond

// acquireTimeout bounds how long Acquire waits for locks that no process should
// hold for long. A holder that has lost its file notices it within half of that.
const acquireTimeout = time.Second

// maxSize is the number of bytes that are read of a pid file. It is more than
// any pid has digits.
const maxSize = 32

// parse returns the pid in the first line of a pid file. It returns 0 if the
// line has anything but digits.
func parse(content []byte) int {
	for i, c := range content {
		if c == '\n' {
			content = content[:i]
			break
		}
		if c < '0' || c > '9' {
			return 0
		}
	}
	pid, err := strconv.ParseInt(string(content), 10, 32)
	if err != nil {
		return 0
	}
	return int(pid)
}

// Restored is what Restore had to do.
type Restored uint8

const (
	Intact    Restored = iota // nothing
	Rewritten                 // the file was overwritten in place
	Recreated                 // the path named another file, or none
)
