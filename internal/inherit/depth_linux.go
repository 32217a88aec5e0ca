package inherit

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Depth is how many managers there are above this process: the larger of what the variable says and of what can be seen.
//
// A worker's environment is clean, so what it starts has no variable; but the kernel keeps the environment that each
// ancestor was started with. And where a wrapper emptied that too (env -i), there are still the ancestors that run this
// very program and are no workers, save for those in whose place a successor stands. What cannot be read (another user's
// process) is passed over.
func Depth() (int, error) {
	line := lineage()
	value, found := os.LookupEnv(DepthEnv)
	for _, a := range line[1:] {
		if !found {
			value, found = a.depth, a.told
		}
	}
	seen := managersAbove(line)
	if !found {
		return seen, nil
	}
	depth, err := parseDepth(value)
	return max(depth, seen), err
}

// lineage is this process and its ancestors, as they were started.
func lineage() []ancestor {
	line := []ancestor{look(os.Getpid())}
	for pid := os.Getppid(); pid > 0 && len(line) <= 64; {
		line = append(line, look(pid))
		var err error
		if pid, err = parentOf(pid); err != nil {
			break
		}
	}
	return line
}

func look(pid int) ancestor {
	a := ancestor{pid: pid}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return a
	}
	if theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
		a.ours = isThisProgram(theirs)
	}
	_, a.worker = lookup(environ, Env)
	a.depth, a.told = lookup(environ, DepthEnv)
	if value, ok := lookup(environ, ReaperEnv); ok {
		a.reaper, _, _ = ParseReaper(value)
	}
	if value, ok := lookup(environ, SuccessorEnv); ok {
		if m, err := ParseSuccessor(value); err == nil {
			a.predecessor = m.Manager
		}
	}
	return a
}

// An ancestor is what can be seen of a process above this one, or of this one itself.
type ancestor struct {
	pid         int
	ours        bool   // it runs this very program
	worker      bool   // it was started with a worker's marker
	predecessor int    // the manager in whose place it stands, if it was started as a successor; 0 for others
	reaper      int    // the reaper above it, as it was told; 0 for others
	depth       string // what it was told of its depth
	told        bool
}

// managersAbove counts the managers among the ancestors of the first in line, from the nearest to the farthest: those who
// run this program and are no workers. A successor and the managers before it, which live until their last worker has ended,
// are one level: otherwise a few upgrades in a row would look like a program that starts itself. It must be the parent
// that the successor names; whatever stands between them would not have verified the marker. A reaper is none: it runs nothing of the
// program.
func managersAbove(line []ancestor) (n int) {
	for i, a := range line {
		if i > 0 && a.ours && !a.worker && line[i-1].predecessor != a.pid && line[i-1].reaper != a.pid {
			n++
		}
	}
	return n
}

// lookup finds a variable in an environment as the kernel keeps it.
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

// parseParent finds the parent in what the kernel says of a process. The second field is the name, in parentheses, which the
// process chooses, and may itself hold anything.
func parseParent(stat []byte) (int, error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("%q is not what the kernel says of a process", short(string(stat)))
	}
	return strconv.Atoi(fields[1])
}
