// Package pidfile gives a name to one process at a time: a file with its pid, which the kernel locks for as long as the
// process lives. Only the lock counts. What the file says is for people and scripts, and for finding out who it is.
package pidfile

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// HeldError says that another process holds a file, or another part of this one.
type HeldError struct {
	Path string
	PID  int // 0 where the process cannot be seen from here, as from outside its PID namespace
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return e.Path + " is held by a process that cannot be seen from here"
	}
	return fmt.Sprintf("%s is held by process %d", e.Path, e.PID)
}

// errChanged says that the file at the path is another one by now.
var errChanged = errors.New("the file was replaced meanwhile")

// How long the answer to "who holds it" may take: between its lock and its pid in the file a process may have to wait for
// its turn.
const tellLimit = 500 * time.Millisecond

// maxSize is as much of a file as is read: more than any pid has digits.
const maxSize = 32

// parse reads what a pid file says: the first line, of digits alone; else 0.
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
