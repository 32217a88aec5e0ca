package preforktest

import (
	"fmt"
	"strings"
)

// The functions of this file do not wait. They read /proc and need Linux, unless said otherwise: elsewhere their error
// matches errors.ErrUnsupported. For a process that does not exist the error matches fs.ErrNotExist.

// A Proc is a process as /proc described it.
type Proc struct {
	PID, PPID int
	State     byte     // R running, S sleeping, D in disk wait, T stopped, Z zombie …, as in proc_pid_stat(5)
	Comm      string   // the name of its main thread, at most 15 bytes
	Cmdline   []string // nil in a zombie
}

// String returns the process in one line, for messages.
func (p Proc) String() string {
	cmdline := strings.Join(p.Cmdline, " ")
	if cmdline == "" {
		cmdline = "[" + p.Comm + "]"
	}
	return fmt.Sprintf("pid %d (parent %d, state %c) %s", p.PID, p.PPID, p.State, cmdline)
}

// list writes processes below each other, for messages.
func list(procs []Proc) string {
	var b strings.Builder
	for _, p := range procs {
		b.WriteString("\n\t" + p.String())
	}
	return b.String()
}

// Children returns the child processes of a process, live ones and zombies, by ascending pid. A process that does not
// exist has none. It needs Linux.
func Children(pid int) ([]Proc, error) { return children(pid) }

// Zombies returns the child processes of a process that have ended and were not waited for. It needs Linux.
func Zombies(pid int) ([]Proc, error) {
	all, err := children(pid)
	var zombies []Proc
	for _, p := range all {
		if p.State == 'Z' {
			zombies = append(zombies, p)
		}
	}
	return zombies, err
}

// Descriptors returns the open descriptors of a process, each with what it refers to: a path, or a name such as
// "pipe:[4711]". It needs Linux; on other Unix systems it works for the calling process, without what they refer to, and
// only for the first 4096.
func Descriptors(pid int) (map[int]string, error) { return descriptors(pid) }

// Threads returns the number of threads of a process. It needs Linux.
func Threads(pid int) (int, error) { return threads(pid) }

// ContextSwitches returns how often threads of a process have left a processor, by waiting or by being preempted. Those of
// threads that have ended no longer count. It needs Linux.
func ContextSwitches(pid int) (int64, error) { return contextSwitches(pid) }

// PrivateMemory returns how many bytes of memory a process shares with no other: what its end would free. It needs Linux
// and walks the page tables, which takes a millisecond or more.
func PrivateMemory(pid int) (int64, error) { return privateMemory(pid) }
