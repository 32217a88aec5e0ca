//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// placement assigns processors to the load generator and to the servers, for
// rows in which both run at the same time.
type placement struct{ load, serve []int }

// place gives each side half of the processors, or the only one to both.
func place() (placement, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return placement{}, err
	}
	var all []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	if len(all) == 1 {
		return placement{all, all}, nil
	}
	return placement{all[len(all)/2:], all[:len(all)/2]}, nil
}

func (p placement) String() string {
	return fmt.Sprintf("load on processors %v, servers on %v", p.load, p.serve)
}

// pin restricts this process to the given processors until release is called.
func pin(cpus []int) (release func()) {
	var before, set unix.CPUSet
	unix.SchedGetaffinity(0, &before)
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	pinThreads(&set)
	return func() { pinThreads(&before) }
}

// pinThreads sets the processors of all threads. New threads inherit them from
// their creator.
func pinThreads(set *unix.CPUSet) {
	entries, _ := os.ReadDir("/proc/self/task")
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			unix.SchedSetaffinity(tid, set)
		}
	}
}
