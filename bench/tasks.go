//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tasksOfWorker is the usual number of threads of an idle worker.
const tasksOfWorker = 7

// checkTaskLimit returns an error if a cgroup does not allow the processes and
// threads of n workers. Without the check their starts would fail one by one
// and be retried.
func checkTaskLimit(n int) error {
	allowed, file := tasksAllowed()
	if need := n * tasksOfWorker; need > allowed {
		return fmt.Errorf("%d workers have about %d threads, but %s allows only %d more: use fewer with --fleet", n, need, file, allowed)
	}
	return nil
}

// tasksAllowed returns how many processes and threads can still be started, and
// the file with the limit.
func tasksAllowed() (n int, file string) {
	n = 1 << 30
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(fields) != 3 {
			continue
		}
		root := "/sys/fs/cgroup"
		if fields[1] == "pids" {
			root += "/pids"
		} else if fields[1] != "" {
			continue
		}
		for dir := filepath.Join(root, fields[2]); len(dir) >= len(root); dir = filepath.Dir(dir) {
			limit, err := strconv.Atoi(firstLine(dir + "/pids.max"))
			if err != nil {
				continue // "max", or no such file
			}
			current, _ := strconv.Atoi(firstLine(dir + "/pids.current"))
			if limit-current < n {
				n, file = limit-current, dir+"/pids.max"
			}
		}
	}
	return n, file
}

func firstLine(file string) string {
	text, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}
