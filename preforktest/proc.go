package preforktest

import (
	"fmt"
	"strings"
)

// A Proc describes a process, as read from /proc.
//
// The functions that read /proc do not wait. They need Linux; on other systems
// their error matches errors.ErrUnsupported. If the process does not exist, it
// matches fs.ErrNotExist.
type Proc struct {
	PID, PPID int

	// State is R for running, S for sleeping, D for disk wait, T for stopped or
	// Z for zombie; proc_pid_stat(5) lists others.
	State byte

	Comm    string   // name of the main thread, at most 15 bytes
	Cmdline []string // nil for a zombie
}

// String returns the process in one line, for messages.
func (p Proc) String() string {
	cmdline := strings.Join(p.Cmdline, " ")
	if cmdline == "" {
		cmdline = "[" + p.Comm + "]"
	}
	return fmt.Sprintf("pid %d (parent %d, state %c) %s", p.PID, p.PPID, p.State, cmdline)
}

// list returns processes one per line, for messages.
func list(procs []Proc) string {
	var b strings.Builder
	for _, p := range procs {
		b.WriteString("\n\t" + p.String())
	}
	return b.String()
}

// Children returns the child processes of a process, live or zombies, by
// ascending pid. A process that does not exist has none. It needs Linux.
func Children(pid int) ([]Proc, error) { return children(pid) }

// Zombies returns the child processes of a process that have exited and were
// not reaped. It needs Linux.
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

// Descriptors returns the open descriptors of a process with the path of each
// file, or a name such as "pipe:[4711]". It needs Linux. On other Unix systems
// it works only for the calling process, without names and for the first 4096
// descriptors.
func Descriptors(pid int) (map[int]string, error) { return descriptors(pid) }

// Threads returns the number of threads of a process. It needs Linux.
func Threads(pid int) (int, error) { return threads(pid) }

// ContextSwitches returns how often the threads of a process have left a
// processor, by waiting or by preemption. Threads that have exited do not
// count. It needs Linux.
func ContextSwitches(pid int) (int64, error) { return contextSwitches(pid) }

// PrivateMemory returns the bytes of memory that a process shares with no
// other, which its exit would free. It walks the page tables, which takes a
// millisecond or more. It needs Linux.
func PrivateMemory(pid int) (int64, error) { return privateMemory(pid) }
