package reaper

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The rounds of killDescendants.
const (
	firstPause = time.Millisecond // between two; most processes need one round
	maxPause   = 50 * time.Millisecond
	reportTime = time.Second // after which it reports the processes that are left
	maxVain    = 10          // rounds without a process that it may kill
	maxListed  = 100         // readings of the list of children in a round
)

// killDescendants kills all descendants of this process, and returns when it has
// reaped them. It waits for processes that do not exit, because a lock of the
// program must not be free before. It does not wait for processes that it is not
// permitted to kill. The caller must hold mu.
func (r *reaper) killDescendants() {
	if !r.cfg.Kill {
		return
	}
	k := killer{pid: r.pid, killed: make(map[int]bool)}
	pause, waited, vain := firstPause, time.Duration(0), 0
	for !reapAll() {
		left, fresh := k.round()
		if vain++; left > 0 {
			vain = 0
		}
		if vain == maxVain {
			r.report("some descendants are left: permission denied")
			return
		}
		if fresh {
			pause = firstPause
		}
		time.Sleep(pause)
		if waited += pause; waited-pause < reportTime && waited >= reportTime {
			r.report(fmt.Sprintf("waiting for %d processes, which SIGKILL has not ended yet", left))
		}
		pause = min(2*pause, maxPause)
	}
}

func (r *reaper) report(text string) {
	fmt.Fprintf(os.Stderr, "prefork: %s (pid %d): %s\n", r.cfg.name(), r.pid, text)
}

// reapAll waits for all children that have exited. It reports whether no child is
// left.
func reapAll() (none bool) {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return true
		case pid == 0:
			return false
		}
	}
}

// A killer kills the descendants of this process.
type killer struct {
	pid    int
	killed map[int]bool
}

// round kills all descendants that it finds. It returns the number of processes
// that it has killed and that have not exited, and whether one of them is new.
//
// The kernel has a list of the children of a process. Between its reading and the
// signals there is so little time that this stops even a process that only starts
// the next one and exits. But not every kernel has the list, and a child that does
// not exit keeps its own children. So the round then looks for descendants among
// all processes.
func (k *killer) round() (left int, fresh bool) {
	for range maxListed {
		_, more := k.killAll(listedChildren())
		if reapAll() {
			return 0, false
		}
		if !more {
			break
		}
		fresh = true
	}
	left, more := k.killAll(descendants(k.pid, processes()))
	return left, fresh || more
}

func (k *killer) killAll(all []process) (left int, fresh bool) {
	for _, p := range all {
		// A zombie that is a child of this process, which has just reaped all that
		// have exited, has threads that have not.
		if p.kill() != nil || p.zombie && p.parent != k.pid {
			continue // it is gone, or may not be killed
		}
		left++
		fresh = fresh || !k.killed[p.pid]
		k.killed[p.pid] = true
	}
	return left, fresh
}

// listedChildren returns the children of this process that the kernel lists.
func listedChildren() (all []process) {
	threads, _ := filepath.Glob("/proc/self/task/*/children")
	for _, name := range threads {
		text, _ := os.ReadFile(name)
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				all = append(all, process{pid: pid, listed: true})
			}
		}
	}
	return all
}

// A process is one that /proc lists.
type process struct {
	pid    int
	listed bool // as a child of this process; the other fields are not known
	parent int
	start  string // when it was started, in ticks of the kernel
	zombie bool
}

// processes returns all processes.
func processes() (all []process) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			if p, err := readProcess(pid); err == nil {
				all = append(all, p)
			}
		}
	}
	return all
}

func readProcess(pid int) (process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	return parseStat(pid, stat)
}

// parseStat parses a stat file of /proc. The second field is the name of the
// process, in parentheses. The process chooses it, so it may contain anything.
func parseStat(pid int, stat []byte) (process, error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return process{}, errMessage
	}
	parent, err := strconv.Atoi(fields[1])
	return process{pid: pid, parent: parent, start: fields[19], zombie: fields[0] == "Z"}, err
}

// descendants returns those of all that descend from process root.
func descendants(root int, all []process) (found []process) {
	children := make(map[int][]process)
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	found = children[root]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
		delete(children, found[i].pid) // so that a wrong list cannot be a circle
	}
	return found
}

// kill kills the process, unless it has exited, or has another parent since then.
// Its pid may belong to an unrelated process now, unless it is a child of this
// one, which has not reaped it.
func (p process) kill() error {
	if p.listed {
		return unix.Kill(p.pid, unix.SIGKILL)
	}
	handle, err := unix.PidfdOpen(p.pid, 0)
	if err == nil {
		defer unix.Close(handle)
	}
	if err != nil && err != unix.ENOSYS { // of an old kernel
		return err
	}
	now, statErr := readProcess(p.pid)
	switch {
	case statErr != nil:
		return statErr
	case now.parent != p.parent || now.start != p.start:
		return unix.ESRCH
	case err != nil:
		return unix.Kill(p.pid, unix.SIGKILL)
	}
	return unix.PidfdSendSignal(handle, unix.SIGKILL, nil, 0)
}
