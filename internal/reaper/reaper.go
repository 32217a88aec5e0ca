// Package reaper is the process above a manager that adopts and waits for orphans: the first process of a container, or a
// subreaper. In a manager itself that would not be sound, since a child of os/exec cannot be told from an orphan.
//
// The reaper runs nothing of the program. It starts it again as its child, passes signals on to it, waits for all
// processes that end, and ends with the status of the manager. The two have a socket, on which the manager tells of an
// successor that has taken its place; the end of the socket tells the manager that the reaper is gone.
package reaper

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxPID bounds what a message can name; no system has more.
const maxPID = 1 << 30

// number reads a number as strconv.Itoa writes it.
func number(text string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || strconv.Itoa(n) != text || n < lo || n > hi {
		return 0, errMessage
	}
	return n, nil
}

var errMessage = errors.New("not what a manager says")

// A message from a manager to its reaper is one packet: "successor PID" when that has taken over, "ended PID CODE" when a manager
// has waited for such a successor. CODE is the exit code, or 128 and the signal that ended it.
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

// A chain is the managers of a program: the first, and the successors after it, each of which took the place of the one before.
type chain []*manager

type manager struct {
	pid    int
	handle int    // pidfd, or -1
	close  func() // closes it; nil for none
	gone   bool
	code   int            // how it ended: an exit code, or 128 and a signal
	signal syscall.Signal // the signal
}

// end notes how a manager has ended. No signal goes to it any more.
func (m *manager) end(code int, sig syscall.Signal) {
	m.gone, m.code, m.signal = true, code, sig
	if m.close != nil {
		m.close()
	}
	m.handle, m.close = -1, nil
}

func (c chain) find(pid int) (i int, found bool) {
	for i := len(c) - 1; i >= 0; i-- {
		if c[i].pid == pid && !c[i].gone {
			return i, true
		}
	}
	return 0, false
}

// heard takes in what a manager has said.
func (c *chain) heard(m message, open func(pid int) (handle int, close func())) {
	i, found := c.find(m.pid)
	switch {
	case m.ended && found:
		(*c)[i].end(m.code, 0)
	case !m.ended && !found:
		for last := len(*c) - 1; last > 0 && (*c)[last].gone; last-- {
			*c = (*c)[:last] // it has nothing to do with this successor: what it said came before its end
		}
		handle, close := open(m.pid)
		*c = append(*c, &manager{pid: m.pid, handle: handle, close: close})
	}
}

// reaped takes in the end of a child. A successor is the child of the manager before it while that lives, and then the
// reaper's, unless it is gone and nobody has told: isChild says.
func (c *chain) reaped(pid int, code int, sig syscall.Signal, isChild func(pid int) bool) {
	if i, found := c.find(pid); found {
		(*c)[i].end(code, sig)
	}
	for i, m := range (*c)[1:] {
		if (*c)[i].gone && !m.gone && !isChild(m.pid) {
			m.end(1, 0)
		}
	}
	// The last counts, also when it is gone. Of the others, those that are gone had one more use, which was to have the successor
	// looked for among the children: there it is, or gone, too.
	last := (*c)[len(*c)-1]
	*c = slices.DeleteFunc(*c, func(m *manager) bool { return m.gone && m != last })
}

// target is who signals go to: the newest that lives; nil for none.
func (c chain) target() *manager {
	for i := len(c) - 1; i >= 0; i-- {
		if !c[i].gone {
			return c[i]
		}
	}
	return nil
}
