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

// beforeTests makes the test process adopt the orphans of its programs, so that it can wait for them and find those that
// are left.
func beforeTests() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	openedBefore = openFiles()
	for _, f := range openedBefore {
		// What whoever runs the tests left open is not to be found in the programs.
		if fd, _ := strconv.Atoi(strings.Fields(f)[0]); fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

func openedByTests() (complaints []string) {
	for _, f := range openFiles() {
		if !slices.Contains(openedBefore, f) {
			complaints = append(complaints, "a descriptor is left: "+f)
		}
	}
	return complaints
}

// openFiles lists the descriptors of this process, "3 socket:[1234]", but for those of the runtime: its poller's, and the
// limits of its cgroup, which it keeps open.
func openFiles() (files []string) {
	entries, err := os.ReadDir("/proc/self/fd")
	check(err)
	poller := true // the runtime's epoll is older than any other, and os.ReadDir has just used it
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
