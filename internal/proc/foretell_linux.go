package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The threads of a process that is killed end one by one, and the last of them takes the memory down; only then is the
// process dead for its pidfd. Observed with a Go program that links net, from SIGKILL: the first thread after 0.06 ms, the process
// after 0.42. So two threads are watched (PIDFD_THREAD, Linux 6.9): one of them is not the last.
const foretellers = 2

// Foretell watches the oldest threads beside the first: in a Go program the runtime's own, which do not end by themselves.
func (p *pidfdProcess) Foretell() {
	if p.t.threadless || p.pidfd < 0 || p.reaped {
		return
	}
	for _, tid := range p.oldestThreads() {
		fd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
		if err == unix.EINVAL {
			p.t.threadless = true // the kernel is older
		}
		if err != nil {
			return
		}
		if p.epollCtl(unix.EPOLL_CTL_ADD, fd, Ending) != nil {
			unix.Close(fd)
			return
		}
		p.threads = append(p.threads, fd)
	}
}

func (p *pidfdProcess) oldestThreads() (tids []int) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/task", p.pid))
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(1 + foretellers) // the kernel lists them by age
	for _, name := range names {
		if tid, err := strconv.Atoi(name); err == nil && tid != p.pid {
			tids = append(tids, tid)
		}
	}
	return tids
}

// The fields of /proc/PID/task/TID/stat behind the name of the program, which can hold blanks and parentheses.
const (
	statFlags   = 9 - 3
	statPending = 31 - 3

	exiting = 0x4 // PF_EXITING (linux/sched.h)
	sigkill = 1 << (unix.SIGKILL - 1)
)

// Ending looks whether the first thread has begun to exit, or is about to: when a process ends as a whole, each of its
// threads has SIGKILL pending. A thread that ended alone leaves nothing of that. In between is a moment in which the
// kernel shows neither; then only the Exited note tells.
func (p *pidfdProcess) Ending() bool {
	p.closeThreads()
	if p.pidfd < 0 || p.reaped {
		return false
	}
	// The file of the first thread alone: that of the process adds up its threads, which takes longer than all the rest.
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/task/%d/stat", p.pid, p.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var stat [1024]byte
	n, err := unix.Read(fd, stat[:])
	return err == nil && endingStat(stat[:n])
}

func endingStat(stat []byte) bool {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= statPending {
		return false
	}
	flags, _ := strconv.ParseUint(string(fields[statFlags]), 10, 64)
	pending, _ := strconv.ParseUint(string(fields[statPending]), 10, 64)
	return flags&exiting != 0 || pending&sigkill != 0
}

func (p *pidfdProcess) closeThreads() {
	for _, fd := range p.threads {
		unix.Close(fd)
	}
	p.threads = nil
}
