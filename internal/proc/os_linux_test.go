package proc

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

var tableNames = []string{"pidfd", "portable"}

func newTable(name string, notify func(Note)) Table {
	if name == "portable" {
		return newPortableTable(notify, nil)
	}
	t, err := newPidfdTable(notify)
	if err != nil {
		panic(err)
	}
	return t
}

// adoptOrphans makes the test process the parent of its programs' orphans, so
// that it can wait for them and preforktest.Main finds leftovers.
var adoptOrphans = sync.OnceFunc(func() {
	check(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
})

// openFiles returns the descriptors of this process with their names.
func openFiles() map[int]string {
	files, err := preforktest.Descriptors(os.Getpid())
	check(err)
	return files
}
