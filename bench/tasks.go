//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tasksOfWorker is how many threads an idle worker has, as a rule.
const tasksOfWorker = 7

// roomFor refuses to start n workers where a cgroup does not allow so many processes and threads: they would fail one by one,
// and be tried again.
func roomFor(n int) error {
	allowed, file := tasksAllowed()
	if need := n * tasksOfWorker; need > allowed {
		return fmt.Errorf("%d workers are about %d threads, and %s allows %d more; give fewer by --fleet", n, need, file, allowed)
	}
	return nil
}

// tasksAllowed is how many processes and threads may still be started here, and which file says so.
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
