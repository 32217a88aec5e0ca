package marker

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Depth returns the number of managers above this process: the larger of the
// variable's value and the number of managers among its ancestors. isOurs reports
// whether process pid runs the program of this process.
//
// A worker removes the variable, so a process that it starts has none. But the
// kernel keeps the environment that each ancestor was started with. If a wrapper
// such as env -i emptied that too, Depth counts the ancestors that run this
// program and are not workers. It does not count managers that a successor among
// the ancestors replaces. It skips ancestors that it cannot read, such as
// another user's.
func Depth(isOurs func(pid int) bool) (int, error) {
	line := lineage(isOurs)
	value, found := os.LookupEnv(DepthEnv)
	for _, a := range line[1:] {
		if !found {
			value, found = a.depth, a.hasDepth
		}
	}
	counted := managersAbove(line)
	if !found {
		return counted, nil
	}
	depth, err := parseDepth(value)
	return max(depth, counted), err
}

// HideDepth removes the depth from the environment of a worker that has started
// its work, so that no variable of this package is left. Depth finds it in the
// environment of an ancestor. A worker should not remove it earlier: a program
// that executes itself in the prelude of main has its own old environment for an
// ancestor.
func HideDepth() { os.Unsetenv(DepthEnv) }

// IsMissing reports whether process pid was started without a worker's marker. It
// returns false if the environment of the process cannot be read.
func IsMissing(pid int) bool {
	environ, err := readEnviron(pid)
	if err != nil {
		return false
	}
	_, isWorker := lookup(environ, Env)
	return !isWorker
}

// IsOrphan reports whether process pid was started as a worker and its manager
// has ended. It is true for a process that is exiting, which has no environment
// but may still have descriptors.
func IsOrphan(pid int) bool {
	environ, err := readEnviron(pid)
	if err != nil || len(environ) == 0 {
		return err == nil
	}
	value, isWorker := lookup(environ, Env)
	m, err := Parse(value)
	if !isWorker || err != nil {
		return false
	}
	parent, err := parentOf(pid)
	return err == nil && parent != m.Manager
}

// lineage returns this process and its ancestors, as they were started.
func lineage(isOurs func(pid int) bool) []ancestor {
	line := []ancestor{readAncestor(os.Getpid(), isOurs)}
	for pid := os.Getppid(); pid > 0 && len(line) <= 64; {
		line = append(line, readAncestor(pid, isOurs))
		var err error
		if pid, err = parentOf(pid); err != nil {
			break
		}
	}
	return line
}

// An ancestor is this process or one above it.
type ancestor struct {
	pid         int
	ours        bool   // it runs this program
	worker      bool   // it was started with a worker's marker
	predecessor int    // the manager that it replaces, if it was started as a successor; else 0
	reaper      int    // the reaper or the guard above it, by its environment; 0 for none
	depth       string // its depth, by its environment
	hasDepth    bool
}

func readAncestor(pid int, isOurs func(pid int) bool) ancestor {
	a := ancestor{pid: pid}
	environ, err := readEnviron(pid)
	if err != nil {
		return a
	}
	a.ours = isOurs(pid)
	_, a.worker = lookup(environ, Env)
	a.depth, a.hasDepth = lookup(environ, DepthEnv)
	if value, ok := lookup(environ, ReaperEnv); ok {
		r, _ := ParseReaper(value)
		a.reaper = r.PID
	}
	if value, ok := lookup(environ, SuccessorEnv); ok {
		if m, err := ParseSuccessor(value); err == nil {
			a.predecessor = m.Manager
		}
	}
	return a
}

// managersAbove counts the managers among the ancestors of line[0], from the
// nearest to the farthest. A manager runs this program and is not a worker. A
// reaper is not a manager, nor is its guard: they run no code of the program.
//
// A successor and the managers that it replaces count as one, since a manager
// lives until its last worker has ended. Otherwise a few upgrades in a row would
// look like a program that starts itself. The parent of a successor must be the
// manager that it names: with a process between them, it would not have verified
// the marker.
func managersAbove(line []ancestor) (n int) {
	for i, a := range line {
		if i > 0 && a.ours && !a.worker && line[i-1].predecessor != a.pid && line[i-1].reaper != a.pid {
			n++
		}
	}
	return n
}

// readEnviron returns the environment that a process was started with.
func readEnviron(pid int) ([]byte, error) { return os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) }

// lookup finds a variable in an environment that readEnviron has returned.
func lookup(environ []byte, name string) (value string, ok bool) {
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(kv, []byte(name+"=")); ok {
			return string(value), true
		}
	}
	return "", false
}

func parentOf(pid int) (int, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseParent(stat)
}

// parseParent finds the parent's pid in a stat file of /proc. The second field is
// the name of the process, in parentheses. The process chooses it, so it may
// contain anything.
func parseParent(stat []byte) (int, error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("%q is not the stat file of a process", short(string(stat)))
	}
	return strconv.Atoi(fields[1])
}
