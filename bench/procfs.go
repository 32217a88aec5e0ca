//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// pids lists all processes.
func pids() (all []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// carriers are the processes that carry a contender's id in their environment. It is unsure whether these are all where there is
// a descendant of this process whose environment cannot be seen: one that has ended may have started another since the
// processes were listed; and in the middle of an exec the kernel has given a process its new memory, and not yet said where in
// there the environment is. Then ask again, with the dead reaped.
func carriers(id string) (found []int, unsure bool) {
	want := []byte(idVar + "=" + id)
	buf := make([]byte, 1<<20)
	for _, pid := range pids() {
		env := environ(pid, buf)
		switch {
		case len(env) == 0:
			unsure = unsure || descends(pid, os.Getpid())
		case bytes.Contains(append(env, 0), append(want, 0)):
			found = append(found, pid)
		}
	}
	return found, unsure
}

// environ is what can be seen of a process's environment. It is read at once: an exec between two reads would end the file.
func environ(pid int, buf []byte) []byte {
	file, err := os.Open(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil
	}
	defer file.Close()
	n, _ := file.Read(buf)
	return buf[:max(n, 0)]
}

// descends reports whether pid is a child of ancestor, or one's child and so on.
func descends(pid, ancestor int) bool {
	for pid > 1 && pid != ancestor {
		pid = parent(pid)
	}
	return pid == ancestor
}

// parent is 0 for a process that is gone.
func parent(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" ")) // the program's name may hold anything
	if fields := bytes.Fields(rest); len(fields) > 1 {
		ppid, _ := strconv.Atoi(string(fields[1]))
		return ppid
	}
	return 0
}

// children are the processes whose parent is pid.
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

// memory is the memory of a process in bytes, as the kernel divides it: proportional counts a page that n processes
// share as one n-th of it, private counts what is the process's alone.
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

// wakeups counts how often the threads of a process have been switched away from, of themselves or not: each is one time
// that they had been awake.
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
