//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// pids returns all processes.
func pids() (all []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// processesOf returns the processes that have a contender's id in their
// environment.
//
// The result is incomplete if the environment of a descendant of this process
// is not readable. The descendant may have exited after it started another
// process that the listing missed. Or it may be in the middle of an exec: the
// kernel has given it new memory and not yet set the position of the
// environment in it. The caller should reap dead processes and try again.
func processesOf(id string) (found []int, complete bool) {
	want := []byte(idVar + "=" + id)
	buf := make([]byte, 1<<20)
	complete = true
	for _, pid := range pids() {
		env := environ(pid, buf)
		switch {
		case len(env) == 0:
			complete = complete && !descends(pid, os.Getpid())
		case bytes.Contains(append(env, 0), append(want, 0)):
			found = append(found, pid)
		}
	}
	return found, complete
}

// environ returns the readable part of a process's environment. It uses one
// read, because an exec between two reads would end the file.
func environ(pid int, buf []byte) []byte {
	file, err := os.Open(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil
	}
	defer file.Close()
	n, _ := file.Read(buf)
	return buf[:max(n, 0)]
}

// descends reports whether pid is ancestor or one of its descendants.
func descends(pid, ancestor int) bool {
	for pid > 1 && pid != ancestor {
		pid = parent(pid)
	}
	return pid == ancestor
}

// parent returns the parent of a process, or 0 if the process has exited.
func parent(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The name of the program, in parentheses, may contain any byte.
	_, tail, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
	if fields := bytes.Fields(tail); len(fields) > 1 {
		ppid, _ := strconv.Atoi(string(fields[1]))
		return ppid
	}
	return 0
}

// children returns the processes whose parent is pid.
func children(pid int) (found []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		text, _ := os.ReadFile(file)
		for _, field := range bytes.Fields(text) {
			if child, err := strconv.Atoi(string(field)); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}

// memory is the memory of a process in bytes. A page that n processes share
// counts as one n-th in proportional (PSS); private counts only unshared pages.
type memory struct{ proportional, private int64 }

func memoryOf(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return m, err
	}
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(string(fields[1]), 10, 64)
		switch string(fields[0]) {
		case "Pss:":
			m.proportional = kib << 10
		case "Private_Clean:", "Private_Dirty:", "Private_Hugetlb:":
			m.private += kib << 10
		}
	}
	return m, nil
}

// wakeups returns the number of context switches, voluntary and involuntary, of
// all threads of a process. Each is the end of a period in which the thread was
// awake.
func wakeups(pid int) (n int64) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, file := range tasks {
		text, _ := os.ReadFile(file)
		for line := range bytes.Lines(text) {
			if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.HasSuffix(name, []byte("ctxt_switches")) {
				switches, _ := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
				n += switches
			}
		}
	}
	return n
}
