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

// carriers are the processes that carry a contender's id in their environment. Those that have ended have none.
func carriers(id string) (found []int) {
	want := []byte(idVar + "=" + id)
	for _, pid := range pids() {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(append(env, 0), append(want, 0)) {
			found = append(found, pid)
		}
	}
	return found
}

// inExec reports whether the process is in the middle of an exec: the kernel has given it its new memory, and not yet said where
// in there the environment is, so that it carries nothing that could be seen.
func inExec(pid int) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	_, noProgram := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // a zombie has none
	return err == nil && len(env) == 0 && noProgram == nil
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
