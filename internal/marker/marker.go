// Package marker encodes and decodes the environment in which a manager starts a
// process: its role, its settings and its descriptors, and the depth of managers
// above it.
package marker

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The environment variables of this package. Take and TakeReaper remove them
// when they read them, so that no process inherits the role of another.
const (
	Env          = "PREFORK_WORKER"    // the Marker of a worker
	SuccessorEnv = "PREFORK_SUCCESSOR" // the Marker of a manager that replaces its parent
	DepthEnv     = "PREFORK_DEPTH"     // the number of managers above a process
	CommandEnv   = "PREFORK_COMMAND"   // a program to execute, see BecomeCommand
	ReaperEnv    = "PREFORK_REAPER"    // the reaper above a process, or a request to become one
)

// version changes with the format of a Marker.
const version = "6"

// Marker describes the state that a worker or a successor inherits. In a successor, Slot is 0,
// Generation and Ordinal are 1.
type Marker struct {
	Manager    int    // the manager's pid, in the manager's own PID namespace
	Name       string // of the pool
	Slot       int    // NoSlot in a standby
	Generation int
	Ordinal    int
	Stop       syscall.Signal // the stop signal
	Ignore     string         // signals that must not end the process; see SignalList
	Orphan     time.Duration  // OrphanTimeout
	StopTime   time.Duration  // StopTimeout; negative for never
	Group      bool           // StopGroup
	Control    int            // descriptor of the socket to the manager
	Passed     int            // descriptor of the data from Pass; 0 for none
	Cell       int            // descriptor of the worker's status memory; 0 for none
	Requests   int            // the worker is recycled after this number of requests; 0 for never
	Pause      int            // number of the pause that is in force; 0 for none
	Level      int            // of the log, as in package log/slog
	Exe        int            // descriptor of the program's file, which Take closes; 0 for none
	Long       int            // descriptor of the file with a long marker, which Take closes; or 0
	Resources  string         // the limits that a worker applies to itself; see package resources
	Path       string         // in a successor: the path of the program's file
	Sockets    []Socket
	Files      []File // in a successor: the files that the program has passed on
}

// Socket is a listening socket and the arguments by which the program asks for
// it.
type Socket struct {
	FD               int
	Network, Address string
	Slot             int  // the slot that owns it, or Shared, FellBack or Awaited
	Own              bool // the manager has bound it, and removes its file at the end
	Site             int  // tells equal arguments apart by the caller; 0 for unknown
}

// File is an open file and the name by which the program asks for it.
type File struct {
	FD   int
	Name string
}

// SignalList encodes signals for Marker.Ignore.
func SignalList(sigs []syscall.Signal) string {
	var b []byte
	for i, sig := range sigs {
		if i > 0 {
			b = append(b, '+')
		}
		b = strconv.AppendInt(b, int64(sig), 10)
	}
	return string(b)
}

// Ignored decodes Ignore. A text that is not a number is left out.
func (m *Marker) Ignored() (sigs []os.Signal) {
	for text := range strings.SplitSeq(m.Ignore, "+") {
		if n, err := strconv.Atoi(text); err == nil && n > 0 {
			sigs = append(sigs, syscall.Signal(n))
		}
	}
	return sigs
}

// NoSlot is the slot of a standby.
const NoSlot = -1

// Values of Socket.Slot for a socket that no slot owns.
const (
	Shared   = -1 // all workers share it, as the program asked
	FellBack = -2 // all workers share it, because sockets per worker are not available
	Awaited  = -3 // only the address counts: a standby gets the socket of its slot later
)

const (
	firstFD = 3       // the lowest descriptor that can be inherited, above the standard streams
	maxFD   = 1 << 24 // an upper bound: no system allows more descriptors
)

// field is one field of the format. min and max limit numbers.
type field struct {
	key      string
	value    any // *string, *int, *bool, *time.Duration or *syscall.Signal
	min, max int64
}

// fields returns the fields of m, except for the lists, in their order in the
// format.
func (m *Marker) fields() []field {
	return []field{
		{"pid", &m.Manager, 1, math.MaxInt32},
		{"name", &m.Name, 0, 0},
		{"slot", &m.Slot, NoSlot, math.MaxInt32},
		{"gen", &m.Generation, 1, math.MaxInt},
		{"ord", &m.Ordinal, 1, math.MaxInt},
		{"stop", &m.Stop, 1, 128},
		{"ignore", &m.Ignore, 0, 0},
		{"orphan", &m.Orphan, 0, math.MaxInt64},
		{"stoptime", &m.StopTime, math.MinInt64, math.MaxInt64},
		{"group", &m.Group, 0, 1},
		{"ctl", &m.Control, firstFD, maxFD},
		{"pass", &m.Passed, 0, maxFD},
		{"cell", &m.Cell, 0, maxFD},
		{"requests", &m.Requests, 0, math.MaxInt},
		{"pause", &m.Pause, 0, math.MaxInt32},
		{"level", &m.Level, math.MinInt32, math.MaxInt32},
		{"exe", &m.Exe, 0, maxFD},
		{"res", &m.Resources, 0, 0},
		{"path", &m.Path, 0, 0},
	}
}

func (s *Socket) fields() []field {
	return []field{
		{"descriptor", &s.FD, firstFD, maxFD},
		{"network", &s.Network, 0, 0},
		{"address", &s.Address, 0, 0},
		{"slot", &s.Slot, Awaited, math.MaxInt32},
		{"own", &s.Own, 0, 1},
		{"site", &s.Site, 0, math.MaxInt32},
	}
}

func (f *File) fields() []field {
	return []field{{"descriptor", &f.FD, firstFD, maxFD}, {"name", &f.Name, 0, 0}}
}

// String encodes m as fields of the form key=value after a version and a
// checksum. Parsing text is faster than JSON at the start of every worker (0.06
// against 0.15 ms), and ps shows it.
func (m Marker) String() string {
	b := make([]byte, 0, 160+64*len(m.Sockets))
	for _, f := range m.fields() {
		b = append(append(append(b, f.key...), '='), f.text()...)
		b = append(b, ';')
	}
	for _, s := range m.Sockets {
		b = appendItem(b, "sock=", s.fields())
	}
	for _, f := range m.Files {
		b = appendItem(b, "file=", f.fields())
	}
	body := string(b[:len(b)-1])
	return "v" + version + ";" + checksum(body) + ";" + body
}

// MaxValue is the length of a value up to which it belongs into the environment.
// The kernel refuses a variable of 128 KiB, which some 3,200 sockets need. A
// longer one belongs into a file, and InFile into the environment.
const MaxValue = 32 << 10

// InFile returns a value that refers to a longer one, in a file at a descriptor.
func InFile(manager, descriptor int) string {
	body := "pid=" + strconv.Itoa(manager) + ";long=" + strconv.Itoa(descriptor)
	return "v" + version + ";" + checksum(body) + ";" + body
}

// appendItem appends an element of a list.
func appendItem(b []byte, separator string, fields []field) []byte {
	for _, f := range fields {
		b = append(append(b, separator...), f.text()...)
		separator = ","
	}
	return append(b, ';')
}

func (f field) text() string {
	switch v := f.value.(type) {
	case *string:
		return escape(*v)
	case *bool:
		if *v {
			return "1"
		}
		return "0"
	case *int:
		return strconv.Itoa(*v)
	case *time.Duration:
		return strconv.FormatInt(int64(*v), 10)
	case *syscall.Signal:
		return strconv.Itoa(int(*v))
	}
	panic("marker: unknown type of field " + f.key)
}

// checkFDs returns an error if m uses one descriptor for two purposes.
func (m Marker) checkFDs() error {
	fds := m.FDs()
	slices.Sort(fds)
	for i, fd := range fds {
		if fd < firstFD {
			return fmt.Errorf("descriptor %d is a standard stream", fd)
		}
		if i > 0 && fds[i-1] == fd {
			return fmt.Errorf("descriptor %d is named twice", fd)
		}
	}
	return nil
}

// FDs returns all descriptors in m.
func (m Marker) FDs() []int {
	fds := []int{m.Control}
	for _, fd := range []int{m.Passed, m.Cell, m.Exe, m.Long} {
		if fd != 0 {
			fds = append(fds, fd)
		}
	}
	for _, s := range m.Sockets {
		fds = append(fds, s.FD)
	}
	for _, f := range m.Files {
		fds = append(fds, f.FD)
	}
	return fds
}
