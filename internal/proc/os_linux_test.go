package proc

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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

var openedBefore []string

// beforeTests makes the test process the parent of its programs' orphans, so
// that it can wait for them and find leftovers.
func beforeTests() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	openedBefore = openFiles()
	for _, f := range openedBefore {
		// The programs must not inherit descriptors that were open before the
		// tests.
		if fd, _ := strconv.Atoi(strings.Fields(f)[0]); fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

func openedByTests() (complaints []string) {
	for _, f := range openFiles() {
		if !slices.Contains(openedBefore, f) {
			complaints = append(complaints, "leftover descriptor: "+f)
		}
	}
	return complaints
}

// openFiles lists the descriptors of this process, such as "3 socket:[1234]".
// It omits those of the Go runtime: its poller and the limits of the cgroup.
func openFiles() (files []string) {
	entries, err := os.ReadDir("/proc/self/fd")
	check(err)
	poller := true // the oldest epoll is the runtime's, which os.ReadDir has just used
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		switch {
		case err != nil: // the descriptor of ReadDir itself
		case poller && target == "anon_inode:[eventpoll]":
			poller = false
		case strings.HasPrefix(target, "anon_inode:[eventfd"), strings.HasPrefix(target, "/sys/fs/cgroup/"):
		default:
			files = append(files, fmt.Sprintf("%s %s", e.Name(), target))
		}
	}
	return files
}
