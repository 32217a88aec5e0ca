// Package reaper runs the process above a manager that adopts and reaps
// orphans: the first process of a container, or a subreaper. A manager cannot
// safely do this itself, because it cannot distinguish a child of os/exec from
// an orphan.
//
// The reaper runs no code of the program. It starts the program again as its
// child, forwards signals to it, reaps every process that exits, and exits with
// the status of the last manager. A socket connects the two. The manager uses
// it to report a successor that has taken over. If the reaper exits, the
// manager reads the end of the socket.
//
// A reaper that kills has a guard above it: a reaper whose only manager is that
// reaper. Whichever of the two survives the other kills all descendants.
package reaper

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Config configures Run.
type Config struct {
	Path    string                   // of the program
	Args    []string                 // with which it is started
	Env     []string                 // without the variable that LinkEnv returns
	LinkEnv func(pid, fd int) string // the reaper's pid, and its socket in the program

	// Kill makes the reaper kill all its descendants before it exits. It then keeps
	// the files and directories open that it was started with, for their locks. The
	// reaper with a Guard also kills them after its guard has been killed. The one
	// without is the guard of another: the program that it starts.
	Kill  bool
	Guard *Link
}

func (c Config) isGuard() bool { return c.Kill && c.Guard == nil }

// name is the name of the process.
func (c Config) name() string {
	if c.isGuard() {
		return "guard"
	}
	return "reaper"
}

// maxPID bounds the process IDs in messages; no system has larger ones.
const maxPID = 1 << 30

// number parses a number in the form that strconv.Itoa produces.
func number(text string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || strconv.Itoa(n) != text || n < lo || n > hi {
		return 0, errMessage
	}
	return n, nil
}

var errMessage = errors.New("malformed message")

// A message from a manager to its reaper is one packet: "successor PID" after
// the successor has taken over, or "ended PID CODE" after a manager has reaped
// a successor. CODE is the exit code, or 128 plus the number of the signal that
// killed it.
const maxMessage = 64

type message struct {
	ended bool
	pid   int
	code  int
}

func (m message) String() string {
	if m.ended {
		return fmt.Sprintf("ended %d %d", m.pid, m.code)
	}
	return fmt.Sprintf("successor %d", m.pid)
}

func parseMessage(text string) (m message, err error) {
	words := strings.Split(text, " ")
	switch {
	case len(words) == 2 && words[0] == "successor":
	case len(words) == 3 && words[0] == "ended":
		m.ended = true
		if m.code, err = number(words[2], 0, 255); err != nil {
			return message{}, err
		}
	default:
		return message{}, errMessage
	}
	if m.pid, err = number(words[1], 2, maxPID); err != nil {
		return message{}, err
	}
	return m, nil
}

// A chain holds the managers of a program: the first one, and the successors,
// each of which took over from the one before it.
type chain []*manager

type manager struct {
	pid    int
	handle int    // pidfd, or -1
	close  func() // closes handle; nil if there is none
	exited bool
	code   int            // exit code, or 128 plus the signal
	signal syscall.Signal // the signal that killed it, or 0
}

// setExited records how the manager ended and closes its handle, so that no
// further signal is sent to it.
func (m *manager) setExited(code int, sig syscall.Signal) {
	m.exited, m.code, m.signal = true, code, sig
	if m.close != nil {
		m.close()
	}
	m.handle, m.close = -1, nil
}

func (c chain) find(pid int) (i int, found bool) {
	for i := len(c) - 1; i >= 0; i-- {
		if c[i].pid == pid && !c[i].exited {
			return i, true
		}
	}
	return 0, false
}

// apply updates the chain with a message from a manager.
func (c *chain) apply(m message, open func(pid int) (handle int, close func())) {
	i, found := c.find(m.pid)
	switch {
	case m.ended && found:
		(*c)[i].setExited(m.code, 0)
	case !m.ended && !found:
		for last := len(*c) - 1; last > 0 && (*c)[last].exited; last-- {
			*c = (*c)[:last] // this successor is not its child: its messages precede its exit
		}
		handle, close := open(m.pid)
		*c = append(*c, &manager{pid: m.pid, handle: handle, close: close})
	}
}

// reaped updates the chain after the reaper has reaped a child. A successor is
// a child of the manager before it, and becomes a child of the reaper when that
// manager exits. If it is not, as reported by isChild, then it has exited and
// its exit was never reported.
func (c *chain) reaped(pid int, code int, sig syscall.Signal, isChild func(pid int) bool) {
	if i, found := c.find(pid); found {
		(*c)[i].setExited(code, sig)
	}
	for i, m := range (*c)[1:] {
		if (*c)[i].exited && !m.exited && !isChild(m.pid) {
			m.setExited(1, 0)
		}
	}
	// The status of the last manager is the status of the program, so the
	// last one is kept even after it has exited. An earlier manager that
	// has exited was needed once more: its exit made the loop above check
	// whether its successor is among the children. That successor is a
	// child now, or has exited too.
	last := (*c)[len(*c)-1]
	*c = slices.DeleteFunc(*c, func(m *manager) bool { return m.exited && m != last })
}

// target returns the manager that receives signals: the newest that is still
// running, or nil if none is.
func (c chain) target() *manager {
	for i := len(c) - 1; i >= 0; i-- {
		if !c[i].exited {
			return c[i]
		}
	}
	return nil
}
